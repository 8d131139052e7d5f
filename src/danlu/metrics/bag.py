"""A bag of n-grams and logistic regression: what a classifier must beat to be worth its weights.

Wang and Manning (2012, "Baselines and Bigrams") found it hard to beat on short texts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_ITERATIONS, _HISTORY = 100, 10  # of the solver, which keeps two vectors of all weights for each step of its history


class Bag:
    """Classes of token sequences by their 1-grams to `order`-grams, weighted by tf-idf, rows of unit length.

    The weights minimise sum of cross-entropies + |w|²/2 over one vector per class (multinomial; C = 1 elsewhere).
    """

    def __init__(self, rows: Sequence[Ints], labels: Ints, classes: int, vocabulary: int, order: int = 2):
        self.order, self.vocabulary = order, vocabulary
        grams = [self._grams(row) for row in rows]
        self.known, which = np.unique(np.concatenate(grams), return_inverse=True)
        sizes = np.array([len(each) for each in grams])
        owner = np.repeat(np.arange(len(rows)), sizes)
        pairs = np.unique(owner * len(self.known) + which)
        seen_in = np.bincount(pairs % len(self.known), minlength=len(self.known))
        self.idf = np.log((1 + len(rows)) / (1 + seen_in)) + 1
        self.weight, self.bias = _fitted(*self._features(grams), labels, classes, len(self.known))

    def predict(self, rows: Sequence[Ints]) -> Ints:
        """The most likely class of each row (N,)."""
        indices, values, offsets = self._features([self._grams(row) for row in rows])
        return np.asarray(_scores(indices, values, offsets, self.weight, self.bias).argmax(1))

    def _grams(self, row: Ints) -> Ints:
        """A number for each n-gram of a row, the same in all rows."""
        row = np.asarray(row, np.int64) + 1
        found, gram = [row], row
        for length in range(2, self.order + 1):
            gram = gram[:-1] * (self.vocabulary + 1) + row[length - 1 :]
            found.append(gram)
        return np.concatenate(found)

    def _features(self, grams: Sequence[Ints]) -> tuple[Any, Any, Any]:
        """Known n-grams of all rows end to end, their tf-idf values, and where each row begins."""
        import torch

        indices, values, offsets = [], [], [0]
        for each in grams:
            place = np.searchsorted(self.known, each)
            place = place[(place < len(self.known)) & (self.known[place.clip(max=len(self.known) - 1)] == each)]
            index, times = np.unique(place, return_counts=True)
            value = times * self.idf[index]
            indices.append(index)
            values.append(value / max(float(np.linalg.norm(value)), 1e-12))
            offsets.append(offsets[-1] + len(index))
        flat = torch.from_numpy(np.concatenate(indices)), torch.from_numpy(np.concatenate(values))
        return (*flat, torch.tensor(offsets[:-1]))


def _scores(indices: Any, values: Any, offsets: Any, weight: Any, bias: Any) -> Any:
    import torch.nn.functional as F

    return F.embedding_bag(indices, weight, offsets, mode="sum", per_sample_weights=values) + bias


def _fitted(indices: Any, values: Any, offsets: Any, labels: Ints, classes: int, features: int) -> tuple[Any, Any]:
    """Weights (features, classes) and bias (classes,) by L-BFGS."""
    import torch
    import torch.nn.functional as F

    truth = torch.from_numpy(np.asarray(labels, np.int64))
    weight = torch.zeros(features, classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, history_size=_HISTORY, line_search_fn="strong_wolfe"
    )

    def objective() -> Any:
        solver.zero_grad()
        loss = F.cross_entropy(_scores(indices, values, offsets, weight, bias), truth, reduction="sum")
        total = loss + weight.square().sum() / 2
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(objective)
    return weight.detach(), bias.detach()
