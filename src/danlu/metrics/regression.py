"""How near predicted numbers are to the true ones, and whether they are in the same order.

Shapes: N rows · R rounds of a bootstrap
"""

import math
from collections.abc import Callable

import numpy as np

from danlu.metrics.bootstrap import Figures, Floats, Sample


def sample(truth: np.ndarray, predicted: np.ndarray) -> Sample:
    """Root mean squared and mean absolute error, R², Pearson's and Spearman's correlation of two numbers (N,) a row.

    A correlation is 0 where one side is all the same.
    """
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    error, wanted = predicted - truth, truth - truth.mean() if len(truth) else truth
    related = correlations(truth, predicted)

    def statistic(drawn: Floats) -> Figures:
        total = np.maximum(drawn.sum(1), 1)
        squared = drawn @ error**2 / total
        spread = drawn @ wanted**2 / total - (drawn @ wanted / total) ** 2
        return {
            "rmse": np.sqrt(squared),
            "mae": drawn @ np.abs(error) / total,
            "r2": 1 - np.divide(squared, spread, out=np.ones(len(squared)), where=spread > 0),
            **related(drawn),
        }

    return Sample(np.ones(len(truth), np.int64), statistic)


def correlations(truth: Floats, predicted: Floats) -> Callable[[Floats], Figures]:
    """Pearson's and Spearman's correlation of two numbers (N,) a row, for rows drawn so many times each (R, N)."""
    ranks = _Ranks(truth), _Ranks(predicted)

    def statistic(drawn: Floats) -> Figures:
        found = _pearson(drawn, truth[None], predicted[None])
        return {"pearson": found, "spearman": _pearson(drawn, *(each.of(drawn) for each in ranks))}

    return statistic


def pearson(n: float, x: float, y: float, xx: float, yy: float, xy: float) -> float:
    """The correlation of two numbers from sums over n rows, of each, of their squares and of their products."""
    x, y = x / n, y / n
    spread = math.sqrt(max(xx / n - x**2, 0.0) * max(yy / n - y**2, 0.0))
    return (xy / n - x * y) / spread if spread else 0.0


def _pearson(drawn: Floats, one: Floats, other: Floats) -> Floats:
    """The correlation of numbers (1 or R, N) counted so many times (R, N)."""
    total = np.maximum(drawn.sum(1, keepdims=True), 1)
    one, other = (each - (drawn * each).sum(1, keepdims=True) / total for each in (one, other))
    shared = (drawn * one * other).sum(1)
    spread = np.sqrt((drawn * one**2).sum(1) * (drawn * other**2).sum(1))
    return np.divide(shared, spread, out=np.zeros(len(shared)), where=spread > 0)


class _Ranks:
    """Ranks of numbers (N,) that are drawn several times each; equal ones share the mean of theirs."""

    def __init__(self, values: Floats):
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        self.starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self.of_row = np.empty(len(values), np.int64)
        self.of_row[self.order] = np.repeat(np.arange(len(self.starts)), np.diff([*self.starts, len(values)]))

    def of(self, drawn: Floats) -> Floats:
        """(R, N) -> (R, N)."""
        equal = np.add.reduceat(drawn[:, self.order], self.starts, axis=1)
        middle: Floats = (equal.cumsum(1) - equal / 2)[:, self.of_row]
        return middle
