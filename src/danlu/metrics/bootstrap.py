"""How sure a figure is: the bootstrap's percentile interval (Efron 1979; Efron and Tibshirani 1993, section 13.3).

Shapes: K kinds of rows · R rounds · N rows, the sum of the counts
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from danlu.randomness import stream

Floats = NDArray[np.float64]
Figures = dict[str, Floats]  # by name: (R,), or (R, C) where there is one for each class
ROUNDS, LEVEL = 1000, 0.95
_HELD = 4_000_000  # numbers of drawn counts that are held at once


def means(values: Mapping[str, Floats]) -> "Sample":
    """Rows of which figures are the means of values (N,)."""
    rows = len(next(iter(values.values())))

    def statistic(drawn: Floats) -> Figures:
        return {name: drawn @ each / np.maximum(drawn.sum(1), 1) for name, each in values.items()}

    return Sample(np.ones(rows, np.int64), statistic)


@dataclass(frozen=True)
class Sample:
    """Rows as kinds of equal rows: how many there are of each (K,), and what any counts of them (R, K) amount to."""

    counts: NDArray[np.int64]
    statistic: Callable[[Floats], Figures]

    def figures(self) -> dict[str, Floats]:
        """What the rows themselves amount to: a number, or (C,) for classes."""
        return {name: np.asarray(each[0]) for name, each in self.statistic(self.counts[None].astype(float)).items()}

    def intervals(self, rounds: int = ROUNDS, level: float = LEVEL) -> dict[str, Floats]:
        """The lower and the upper end (2,) or (2, C) of each figure, had other such rows been drawn."""
        tails = 50 * (1 - level), 50 * (1 + level)
        found = [self.statistic(drawn) for drawn in self._drawn(rounds)]
        if not found:
            return {}
        return {name: np.percentile(np.concatenate([each[name] for each in found]), tails, axis=0) for name in found[0]}

    def _drawn(self, rounds: int) -> Iterator[Floats]:
        """Counts (R, K) of N rows drawn with replacement, some rounds at a time."""
        draws, total, kinds = stream(0, "bootstrap"), int(self.counts.sum()), len(self.counts)
        alike = bool((self.counts == 1).all())  # drawn one by one, which is faster than kind by kind
        most = max(1, _HELD // max(total if alike else kinds, 1))
        for first in range(0, rounds if total else 0, most):
            here = min(most, rounds - first)
            if alike:
                places = draws.integers(kinds, size=(here, total)) + kinds * np.arange(here)[:, None]
                yield np.bincount(places.ravel(), minlength=here * kinds).reshape(here, kinds).astype(float)
            else:
                yield draws.multinomial(total, self.counts / total, size=here).astype(float)
