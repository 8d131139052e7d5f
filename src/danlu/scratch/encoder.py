"""The encoder layer of "Attention is all you need" (1706.03762), of which BERT is a stack.

Shapes: B batch · T time · D width · F hidden width
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from danlu.scratch.activations import gelu
from danlu.scratch.attention import MultiHeadAttention
from danlu.scratch.dropout import Dropout
from danlu.scratch.mlp import MLP
from danlu.scratch.module import Module
from danlu.scratch.norms import LayerNorm
from danlu.scratch.tensor import Array, Tensor


class EncoderLayer(Module):
    """x = norm(x + attention(x)), then x = norm(x + mlp(x)): the sums let gradients pass any number of layers."""

    def __init__(self, dim: int, heads: int, hidden: int, rng: np.random.Generator, *, dropout: float = 0.0,
                 activation: Callable[[Tensor], Tensor] = gelu):  # fmt: skip
        self.attention = MultiHeadAttention(dim, heads, rng)
        self.mlp = MLP((dim, hidden, dim), rng, activation)
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.dropout = Dropout(dropout, rng)

    def forward(self, x: Tensor, mask: Array | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) True = a real token -> (B, T, D)."""
        x = self.norm1(x + self.dropout(self.attention(x, mask)))
        return self.norm2(x + self.dropout(self.mlp(x)))
