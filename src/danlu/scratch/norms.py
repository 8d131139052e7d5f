"""Normalisation: numbers of one size, whatever the layers before did.

Shapes: D the width, always the last axis
"""

from __future__ import annotations

import numpy as np

from danlu.scratch.module import Module, Parameter
from danlu.scratch.tensor import Tensor


class LayerNorm(Module):
    """(x - mean) / √(variance + ε) · w + b, mean and variance over the last axis (1607.06450)."""

    def __init__(self, dim: int, eps: float = 1e-5):
        self.weight, self.bias, self.eps = Parameter(np.ones(dim)), Parameter(np.zeros(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        centred = x - x.mean(-1, keepdims=True)  # (..., D) - (..., 1)
        variance = (centred**2).mean(-1, keepdims=True)  # (..., 1)
        return centred * (variance + self.eps) ** -0.5 * self.weight + self.bias


class RMSNorm(Module):
    """x / √(mean of x² + ε) · w: LayerNorm without the mean and the bias (1910.07467)."""

    def __init__(self, dim: int, eps: float = 1e-6):
        self.weight, self.eps = Parameter(np.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        square = (x**2).mean(-1, keepdims=True)  # (..., 1)
        return x * (square + self.eps) ** -0.5 * self.weight
