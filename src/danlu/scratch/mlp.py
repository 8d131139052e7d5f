"""Linear layers with something in between.

Shapes: N rows · B batch · T time · D width · F hidden width
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from danlu.scratch.activations import relu, silu
from danlu.scratch.linear import Linear
from danlu.scratch.module import Module
from danlu.scratch.tensor import Tensor


class MLP(Module):
    """The multi-layer perceptron: f(... f(x W₁ᵀ + b₁) ...) Wₙᵀ + bₙ; no f after the last layer."""

    def __init__(self, sizes: Sequence[int], rng: np.random.Generator, activation: Callable[[Tensor], Tensor] = relu):
        self.activation = activation
        self.layers = [Linear(inputs, outputs, rng) for inputs, outputs in pairwise(sizes)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, sizes[0]) -> (N, sizes[-1])."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))  # (N, this layer's size)
        return self.layers[-1](x)


class SwiGLU(Module):
    """(silu(x Gᵀ) · x Uᵀ) Dᵀ: one half decides how much of the other passes (2002.05202)."""

    def __init__(self, dim: int, hidden: int, rng: np.random.Generator):
        self.gate = Linear(dim, hidden, rng, bias=False)
        self.up = Linear(dim, hidden, rng, bias=False)
        self.down = Linear(hidden, dim, rng, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, F) twice -> (B, T, D)."""
        return self.down(silu(self.gate(x)) * self.up(x))
