"""A bag of n-grams and logistic regression: what a classifier must beat to be worth its weights.

Wang and Manning (2012, "Baselines and Bigrams") found it hard to beat on short texts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.metrics.linear import fitted, fitted_numbers, fitted_sets, scores

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_DENSE = 20_000_000  # numbers of queries that are held at once


class _Grams:
    """Token sequences as their 1-grams to `order`-grams, weighted by tf-idf, rows of unit length."""

    def __init__(self, rows: Sequence[Ints], vocabulary: int, order: int):
        self.order, self.vocabulary = order, vocabulary
        grams = [self._grams(row) for row in rows]
        self.known, which = np.unique(np.concatenate(grams), return_inverse=True)
        sizes = np.array([len(each) for each in grams])
        owner = np.repeat(np.arange(len(rows)), sizes)
        pairs = np.unique(owner * len(self.known) + which)
        seen_in = np.bincount(pairs % len(self.known), minlength=len(self.known))
        self.idf = np.log((1 + len(rows)) / (1 + seen_in)) + 1

    def _grams(self, row: Ints) -> Ints:
        """A number for each n-gram of a row, the same in all rows."""
        row = np.asarray(row, np.int64) + 1
        found, gram = [row], row
        for length in range(2, self.order + 1):
            gram = gram[:-1] * (self.vocabulary + 1) + row[length - 1 :]
            found.append(gram)
        return np.concatenate(found)

    def features(self, rows: Sequence[Ints]) -> tuple[Any, Any, Any]:
        """Known n-grams of all rows end to end, their tf-idf values, and where each row begins."""
        import torch

        indices, values, offsets = [], [], [0]
        for each in map(self._grams, rows):
            place = np.searchsorted(self.known, each)
            place = place[(place < len(self.known)) & (self.known[place.clip(max=len(self.known) - 1)] == each)]
            index, times = np.unique(place, return_counts=True)
            value = times * self.idf[index]
            indices.append(index)
            values.append(value / max(float(np.linalg.norm(value)), 1e-12))
            offsets.append(offsets[-1] + len(index))
        flat = torch.from_numpy(np.concatenate(indices)), torch.from_numpy(np.concatenate(values))
        return (*flat, torch.tensor(offsets[:-1]))


class Bag(_Grams):
    """Classes of token sequences by their n-grams.

    The weights minimise sum of cross-entropies + |w|²/2 over one vector per class (multinomial; C = 1 elsewhere).
    """

    def __init__(self, rows: Sequence[Ints], labels: Ints, classes: int, vocabulary: int, order: int = 2):
        super().__init__(rows, vocabulary, order)
        self.weight, self.bias = fitted(*self.features(rows), labels, classes, len(self.known))

    def shares(self, rows: Sequence[Ints]) -> Floats:
        """How likely each class is for each row (N, C)."""
        return np.asarray(scores(*self.features(rows), self.weight, self.bias).softmax(1))

    def predict(self, rows: Sequence[Ints]) -> Ints:
        """The most likely class of each row (N,)."""
        return np.asarray(self.shares(rows).argmax(1))


class BagOfSets(_Grams):
    """Sets of labels of token sequences by their n-grams: logistic regression for each label, as `Bag`'s."""

    def __init__(self, rows: Sequence[Ints], sets: NDArray[np.bool_], vocabulary: int, order: int = 2):
        super().__init__(rows, vocabulary, order)
        self.weight, self.bias = fitted_sets(*self.features(rows), sets, len(self.known))

    def shares(self, rows: Sequence[Ints]) -> Floats:
        """How likely each label is for each row (N, C)."""
        return np.asarray(scores(*self.features(rows), self.weight, self.bias).sigmoid())


class BagOfNumbers(_Grams):
    """Numbers of token sequences by their n-grams: ridge regression (penalty 1, the mean is free)."""

    def __init__(self, rows: Sequence[Ints], numbers: Floats, vocabulary: int, order: int = 2):
        super().__init__(rows, vocabulary, order)
        self.weight, self.bias = fitted_numbers(*self.features(rows), numbers, len(self.known))

    def predict(self, rows: Sequence[Ints]) -> Floats:
        """The number of each row (N,)."""
        return np.asarray(scores(*self.features(rows), self.weight, self.bias)[:, 0])


class BagOfTexts(_Grams):
    """How alike token sequences are: the cosine of their n-grams, weighted by tf-idf of the sequences it is made of."""

    def __init__(self, rows: Sequence[Ints], vocabulary: int, order: int = 2):
        super().__init__(rows, vocabulary, order)

    def cosines(self, queries: Sequence[Ints], candidates: Sequence[Ints]) -> Iterator[Floats]:
        """(n, C), some queries at a time."""
        import torch

        known, some = self.features(candidates), max(1, _DENSE // max(len(self.known), 1))
        for first in range(0, len(queries), some):
            owner, index, value = self._cells(queries[first : first + some])
            dense = np.zeros((len(self.known), min(some, len(queries) - first)))
            dense[index, owner] = value
            yield np.asarray(scores(*known, torch.from_numpy(dense), 0.0)).T

    def paired(self, ones: Sequence[Ints], others: Sequence[Ints]) -> Floats:
        """The cosine of each with its other (N,)."""
        (owner, first, one), (other_owner, second, other) = self._cells(ones), self._cells(others)
        places = owner * len(self.known) + first, other_owner * len(self.known) + second
        _, here, there = np.intersect1d(*places, assume_unique=True, return_indices=True)
        found: Floats = np.bincount(owner[here], one[here] * other[there], minlength=len(ones)).astype(np.float64)
        return found

    def _cells(self, rows: Sequence[Ints]) -> tuple[Ints, Ints, Floats]:
        """Of which row each n-gram is, which it is, and its value."""
        index, value, starts = (np.asarray(each) for each in self.features(rows))
        return np.repeat(np.arange(len(rows)), np.diff([*starts, len(index)])), index, value


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Share of the tokens of two texts that are in both (Jaccard)."""
    first, second = set(one), set(other)
    return len(first & second) / max(1, len(first | second))
