"""The linear layer of all layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """x weightᵀ + bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weightᵀ + bias in the dtype of x; a bias, being a vector, may have stayed fp32 beside a bf16 weight."""
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))
