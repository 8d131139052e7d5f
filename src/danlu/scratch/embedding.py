"""Numbers of tokens to vectors, and back.

Shapes: B batch · T time · D width · V vocabulary
"""

from __future__ import annotations

import numpy as np

from danlu.scratch.module import Module, Parameter
from danlu.scratch.tensor import Array, Tensor


class Embedding(Module):
    """A table of one row per token. Looking a row up is multiplying by a one-hot vector, without the zeros."""

    def __init__(self, vocab: int, dim: int, rng: np.random.Generator):
        self.weight = Parameter(rng.normal(0.0, 0.02, (vocab, dim)))  # (V, D)

    def forward(self, ids: Array) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self.weight[ids]

    def scores(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, V): how well each token's row fits. The same table both ways is "tied" (1608.05859)."""
        return x @ self.weight.swap(0, 1)
