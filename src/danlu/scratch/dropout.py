"""Dropout: in training, leave out a random share of the numbers, so that none becomes indispensable (1207.0580)."""

from __future__ import annotations

import numpy as np

from danlu.scratch.module import Module
from danlu.scratch.tensor import Tensor


class Dropout(Module):
    """Zero a share p and divide the rest by 1 - p, so that the expected value stays.

    y = x m / (1 - p), dx = G m / (1 - p), with m = 1 where x stays and 0 where it is dropped.
    """

    def __init__(self, p: float, rng: np.random.Generator):
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training or self.p == 0.0:
            return x
        kept = self.rng.random(x.shape) >= self.p  # m
        return x * (kept / (1.0 - self.p))
