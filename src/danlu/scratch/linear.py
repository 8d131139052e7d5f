"""The linear layer.

    y = x Wᵀ + b          dW = Gᵀ x      db = sum of the rows of G      dx = G W          (G = dL/dy)

Shapes: N rows · I inputs · O outputs
"""

from __future__ import annotations

import numpy as np

from danlu.scratch.module import Module, Parameter
from danlu.scratch.tensor import Tensor


class Linear(Module):
    """Weights start with variance 1/I, so that outputs are about as large as inputs (LeCun et al. 1998)."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator, bias: bool = True):
        self.weight = Parameter(rng.normal(0.0, inputs**-0.5, (outputs, inputs)))  # (O, I)
        self.bias = Parameter(np.zeros(outputs)) if bias else None  # (O,): one per output, the same for every row

    def forward(self, x: Tensor) -> Tensor:
        """(..., N, I) -> (..., N, O)."""
        y = x @ self.weight.swap(0, 1)  # (..., N, I) @ (I, O) -> (..., N, O)
        return y if self.bias is None else y + self.bias  # (O,) is added to each row
