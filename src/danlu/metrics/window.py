"""Logistic regression on the words around a word: what a tagger must beat to be worth its weights."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from danlu.metrics.bag import Bag

_REACH = 2  # words to either side
_WORDS = 200_000  # that are learned from, at most
_OFTEN = 2  # how often a feature must occur to be known
_EDGE = "\n"


class Window:
    """The tag of each word by the words around it, the pairs with its neighbours, its ends and its form."""

    def __init__(self, texts: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]):
        found = [one for words in texts for one in _features(words)][:_WORDS]
        said = [tag for each in tags for tag in each][:_WORDS]
        seen = Counter(feature for each in found for feature in each)
        self.names = sorted(set(said))
        often = (feature for feature, times in seen.items() if times >= _OFTEN)
        self.known = {feature: number for number, feature in enumerate(often)}
        rows, labels = [self._numbers(each) for each in found], np.array([self.names.index(tag) for tag in said])
        self.bag = Bag(rows, labels, len(self.names), len(self.known), order=1)

    def predict(self, words: Sequence[str]) -> list[str]:
        """The likeliest tag of each word of a text."""
        rows = [self._numbers(one) for one in _features(words)]
        return [self.names[index] for index in self.bag.predict(rows)] if rows else []

    def _numbers(self, features: Sequence[tuple[object, ...]]) -> np.ndarray:
        return np.array([self.known[each] for each in features if each in self.known], np.int64)


def _features(words: Sequence[str]) -> Iterator[list[tuple[object, ...]]]:
    """What is known of each word."""
    padded = [_EDGE] * _REACH + [word.lower() for word in words] + [_EDGE] * _REACH
    for place, word in enumerate(words):
        around = padded[place : place + 2 * _REACH + 1]
        found: list[tuple[object, ...]] = [(at, each) for at, each in enumerate(around)]
        found += [(at, *around[at : at + 2]) for at in range(2 * _REACH)]
        ends = (("ends", word[-3:].lower()), ("begins", word[:3].lower())) if len(word) > 1 else ()
        yield [*found, *ends, ("form", word[:1].isupper(), word.isupper(), any(map(str.isdigit, word)))]
