"""The learning rate over time, as a share of its peak: pure functions of the step (0-based) and the number of steps."""

from __future__ import annotations

import math


def warm_up(step: int, rising: int) -> float:
    """Rise in a line over the first steps, while Adam's averages are still young: (step + 1) / rising, at most 1."""
    return min(1.0, (step + 1) / max(1, rising))


def cosine(step: int, steps: int, rising: int = 0) -> float:
    """Warm up, then fall along half a cosine to 0: (1 + cos(π done)) / 2 (1608.03983)."""
    if step < rising:
        return warm_up(step, rising)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def warm_stable_decay(step: int, steps: int, rising: int, falling: int) -> float:
    """Warm up, stay at the peak, fall in a line to 0 over the last `falling` steps (2404.06395)."""
    return warm_up(step, rising) if step < rising else min(1.0, (steps - step) / max(1, falling))
