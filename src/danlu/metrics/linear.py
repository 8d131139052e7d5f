"""Linear models of sparse rows: what a network must beat to be worth its weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Sparse = Mapping[str, Any]  # input_ids (F,) and values (F,) of a row
_ITERATIONS, _HISTORY = 100, 10  # of the solver, which keeps two vectors of all weights for each step of its history
_PIECE = 4_000_000  # numbers of a dense piece of the rows


class Logistic:
    """Logistic regression of rows on their cells."""

    def __init__(self, rows: Sequence[Sparse], labels: Ints, features: int):
        self.classes = int(labels.max()) + 1
        self.weight, self.bias = fitted(*_flat(rows), labels, self.classes, features)

    def shares(self, rows: Sequence[Sparse], classes: int) -> Floats:
        """How likely each of so many classes is for each row (N, C)."""
        found = np.zeros((len(rows), classes))
        found[:, : self.classes] = np.asarray(scores(*_flat(rows), self.weight, self.bias).softmax(1))
        return found


class Ridge:
    """Ridge regression (penalty 1; the mean is free) of numbers on cells of rows."""

    def __init__(self, rows: Sequence[Sparse], numbers: Sequence[float], features: int):
        self.features = features
        gram, shared = np.zeros((features + 1, features + 1)), np.zeros(features + 1)
        wanted = np.asarray(numbers, np.float64)
        for start, piece in self._pieces(rows):
            gram += piece.T @ piece
            shared += piece.T @ wanted[start : start + len(piece)]
        penalty = np.eye(features + 1)
        penalty[-1, -1] = 0.0
        self.weight = np.linalg.lstsq(gram + penalty, shared, rcond=None)[0]

    def predict(self, rows: Sequence[Sparse]) -> list[float]:
        """The number of each row."""
        return [float(number) for _, piece in self._pieces(rows) for number in piece @ self.weight]

    def _pieces(self, rows: Sequence[Sparse]) -> Any:
        """Dense pieces (n, features + 1) of the rows, the last column 1."""
        size = max(1, _PIECE // (self.features + 1))
        for start in range(0, len(rows), size):
            here = rows[start : start + size]
            piece = np.zeros((len(here), self.features + 1))
            piece[:, -1] = 1.0
            for place, row in enumerate(here):
                np.add.at(piece[place], np.asarray(row["input_ids"]), row["values"])
            yield start, piece


def _flat(rows: Sequence[Sparse]) -> tuple[Any, Any, Any]:
    """All cells end to end, their values, and where each row begins."""
    import torch

    ids = torch.from_numpy(np.concatenate([np.asarray(row["input_ids"], np.int64) for row in rows]))
    values = torch.from_numpy(np.concatenate([np.asarray(row["values"], np.float64) for row in rows]))
    sizes = torch.tensor([len(row["input_ids"]) for row in rows])
    return ids, values, sizes.cumsum(0) - sizes


def scores(indices: Any, values: Any, offsets: Any, weight: Any, bias: Any) -> Any:
    """(N, C): the weighted sums of rows of features, all end to end; `offsets` (N,) say where each row begins."""
    import torch.nn.functional as F

    return F.embedding_bag(indices, weight, offsets, mode="sum", per_sample_weights=values) + bias


def fitted(indices: Any, values: Any, offsets: Any, labels: Ints, classes: int, features: int) -> tuple[Any, Any]:
    """Weights (features, classes) and bias (classes,) of logistic regression.

    They minimise sum of cross-entropies + |w|²/2 over one vector per class (multinomial; C = 1 elsewhere).
    """
    import torch
    import torch.nn.functional as F

    truth = torch.from_numpy(np.asarray(labels, np.int64))

    def loss(weight: Any, bias: Any) -> Any:
        return F.cross_entropy(scores(indices, values, offsets, weight, bias), truth, reduction="sum")

    return _least(loss, features, classes)


def fitted_numbers(indices: Any, values: Any, offsets: Any, numbers: Floats, features: int) -> tuple[Any, Any]:
    """Weights (features, 1) and bias (1,) of ridge regression: sum of squared errors / 2 + |w|²/2 is least."""
    import torch

    truth = torch.from_numpy(np.asarray(numbers, np.float64))

    def loss(weight: Any, bias: Any) -> Any:
        return (scores(indices, values, offsets, weight, bias)[:, 0] - truth).square().sum() / 2

    return _least(loss, features, 1)


def fitted_sets(indices: Any, values: Any, offsets: Any, sets: NDArray[np.bool_], features: int) -> tuple[Any, Any]:
    """Weights (features, C) and bias (C,) of a logistic regression for each of C labels, yes or no."""
    import torch
    import torch.nn.functional as F

    truth = torch.from_numpy(np.asarray(sets, np.float64))

    def loss(weight: Any, bias: Any) -> Any:
        found = scores(indices, values, offsets, weight, bias)
        return F.binary_cross_entropy_with_logits(found, truth, reduction="sum")

    return _least(loss, features, truth.shape[1])


def _least(loss: Callable[[Any, Any], Any], features: int, outputs: int) -> tuple[Any, Any]:
    """The weight and bias for which loss + |weight|²/2 is least, by L-BFGS."""
    import torch

    weight = torch.zeros(features, outputs, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, history_size=_HISTORY, line_search_fn="strong_wolfe"
    )

    def objective() -> Any:
        solver.zero_grad()
        total = loss(weight, bias) + weight.square().sum() / 2
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(objective)
    return weight.detach(), bias.detach()
