"""Deletion curves (Petsiuk et al. 2018, 1806.07421): words are taken away, and what that does to the answer is seen.

If the words that are said to matter do, an answer falls sooner when they go first than when any words do.
"""

from collections.abc import Callable, Sequence

import numpy as np

from danlu.randomness import stream

Measure = Callable[[list[list[int]]], list[float]]
_STEPS = 10  # of a curve
ORDERS = 8  # random orders, whose mean is the curve beside


def steps(words: int) -> list[int]:
    """How many of them are gone at each point of a curve."""
    return sorted({round(words * step / _STEPS) for step in range(_STEPS + 1)})


def curve(share: Measure, order: Sequence[int]) -> list[float]:
    """The share of the answer when the first words of an order are gone: none, then a tenth of them more each time."""
    return share([list(order[:gone]) for gone in steps(len(order))])


def at_random(share: Measure, words: Sequence[int]) -> list[float]:
    """The mean curve of random orders, the same at every call."""
    found = [curve(share, stream(0, "deletion", each).permutation(words).tolist()) for each in range(ORDERS)]
    mean: list[float] = np.mean(found, 0).tolist()
    return mean


def faithfulness(own: Sequence[float], random: Sequence[float], gone: Sequence[int]) -> float:
    """The area between the random curve and its own: above 0 where the answer falls sooner than by chance."""
    return float(np.trapezoid(np.array(random) - np.array(own), np.array(gone) / gone[-1]))
