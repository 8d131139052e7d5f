"""The n-gram model against dictionaries that follow the paper line by line."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.metrics.ngram import NGram

VOCAB = 5
TOKENS = st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=60)
Gram = tuple[int, ...]


class KneserNey:
    """Interpolated Kneser-Ney, equations (17) to (23) of Chen & Goodman 1999, one discount per order."""

    def __init__(self, tokens: list[int], vocab: int, order: int):
        self.vocab, self.order = vocab, min(order, len(tokens))
        self.counts = [self._counts(tokens, k) for k in range(1, self.order + 1)]
        self.followers: dict[Gram, list[int]] = defaultdict(list)
        for table in self.counts:
            for gram in table:
                self.followers[gram[:-1]].append(gram[-1])
        self.discounts = [self._discount(table) for table in self.counts]

    def _counts(self, tokens: list[int], k: int) -> dict[Gram, int]:
        grams = [tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1)]
        if k == self.order:
            return dict(Counter(grams))
        longer = {tuple(tokens[i : i + k + 1]) for i in range(len(tokens) - k)}
        preceded = Counter(gram[1:] for gram in longer)  # N1+(. gram): how many different tokens stand before it
        return {gram: max(preceded[gram], 1) for gram in grams}

    def _discount(self, table: dict[Gram, int]) -> float:
        once, twice = (sum(count == n for count in table.values()) for n in (1, 2))
        return once / (once + 2 * twice) if once else 0.5

    def probability(self, token: int, history: Gram) -> float:
        """P(token | history), of the longest context known."""
        p = 1 / self.vocab
        for k in range(self.order):
            context = history[len(history) - k :] if k else ()
            if len(context) < k:
                return p
            seen = self.followers.get(context, [])
            table, discount = self.counts[k], self.discounts[k]
            total = sum(table[(*context, each)] for each in seen)
            if not total:
                return p
            own = max(table.get((*context, token), 0) - discount, 0)
            p = (own + discount * len(seen) * p) / total
        return p


@settings(deadline=None)
@given(tokens=TOKENS, held_out=TOKENS, order=st.integers(1, 5))
def test_equal_to_the_paper(tokens: list[int], held_out: list[int], order: int) -> None:
    slow, fast = KneserNey(tokens, VOCAB, order), NGram(np.array(tokens), VOCAB, order)
    expected = [slow.probability(token, tuple(held_out[max(0, i - order + 1) : i])) for i, token in enumerate(held_out)]
    assert fast.probabilities(np.array(held_out)) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(tokens=TOKENS, history=st.lists(st.integers(0, VOCAB - 1), max_size=6), order=st.integers(1, 5))
def test_probabilities_add_up_to_one(tokens: list[int], history: list[int], order: int) -> None:
    model = NGram(np.array(tokens), VOCAB, order)
    each = [float(model.probabilities(np.array([*history, token]))[-1]) for token in range(VOCAB)]
    assert sum(each) == pytest.approx(1, abs=1e-12)
    assert min(each) >= 0


def test_a_token_never_seen_is_possible() -> None:
    """Every token follows several others, so that no unigram is rare: the rest must keep a share all the same."""
    tokens = [int(t) for t in np.random.Generator(np.random.PCG64(1)).integers(0, 4, 400)]
    model = NGram(np.array(tokens), 6, 3)
    held_out = np.array([0, 1, 5, 2])
    assert model.probabilities(held_out)[2] > 0
    bits = model.bits_per_byte(held_out, np.array([False, True, True, True]), np.ones(6, dtype=np.int64))
    assert np.isfinite(bits)


def test_bits_per_byte_by_hand() -> None:
    model = NGram(np.array([0, 1, 0, 1, 0, 1, 1]), 3, 2)
    tokens, lengths = np.array([0, 1, 1, 0]), np.array([1, 4, 2])
    p = model.probabilities(tokens)
    expected = -(np.log2(p[1]) + np.log2(p[3])) / (4 + 1)
    predicted = np.array([False, True, False, True])
    assert model.bits_per_byte(tokens, predicted, lengths) == pytest.approx(expected)


def test_longer_contexts_help_where_there_is_something_to_know() -> None:
    random = np.random.Generator(np.random.PCG64(2))
    tokens = random.integers(0, 8, 6000)
    for at in range(3, len(tokens)):
        if random.random() < 0.9:
            tokens[at] = (tokens[at - 1] + tokens[at - 3]) % 8
    train, held_out = tokens[:5000], tokens[5000:]
    predicted, lengths = np.ones(len(held_out), dtype=bool), np.ones(8, dtype=np.int64)
    bits = [NGram(train, 8, order).bits_per_byte(held_out, predicted, lengths) for order in (1, 2, 4)]
    assert bits[0] == pytest.approx(3, abs=0.1)
    assert bits[2] < 1.2 < bits[1]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_very_little_text(size: int) -> None:
    model = NGram(np.arange(size), 10, 5)
    assert np.isfinite(model.probabilities(np.array([0, 1, 9, 9]))).all()
    assert (model.probabilities(np.array([0, 1, 9, 9])) > 0).all()
