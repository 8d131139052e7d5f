"""Whether two classifiers differ: McNemar's test on the rows that only one of them got right (McNemar 1947).

Exact by the binomial distribution for few such rows, else by chi-square with Edwards's continuity correction (1948).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FEW = 25  # rows that only one got right, below which the exact test is taken


@dataclass(frozen=True)
class McNemar:
    """Rows that only the first and only the second got right, and how often chance alone parts them so far (p)."""

    first: int
    second: int
    exact: bool
    p: float


def compare(first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray) -> McNemar:
    """The test on which rows each got right (N,), in the same order."""
    one, two = np.asarray(first, bool), np.asarray(second, bool)
    only_one, only_two = int((one & ~two).sum()), int((two & ~one).sum())
    differing = only_one + only_two
    if differing < _FEW:
        return McNemar(only_one, only_two, True, _exact(min(only_one, only_two), differing))
    chi_square = max(0, abs(only_one - only_two) - 1) ** 2 / differing
    return McNemar(only_one, only_two, False, math.erfc(math.sqrt(chi_square / 2)))


def _exact(fewer: int, differing: int) -> float:
    """Both tails of Binomial(differing, 1/2)."""
    tail = sum(math.comb(differing, count) for count in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**differing))
