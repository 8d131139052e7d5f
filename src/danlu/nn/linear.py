"""The linear layer of all layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weightᵀ + bias in the dtype of x; a bias, being a vector, may have stayed fp32 beside a bf16 weight."""
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


def evened(rows: Tensor, multiple: int) -> Tensor:
    """(N, D) -> (N', D): on a processor, rows of zeros added up to a multiple.

    oneDNN builds code for every new number of rows, in tens of milliseconds, and keeps it in megabytes.
    """
    short = -len(rows) % multiple if rows.is_cpu else 0
    return F.pad(rows, (0, 0, 0, short)) if short else rows


class Multiplying(nn.Module):
    """A layer with a weight; `product` is how it multiplies while it learns, as `linear` or otherwise (fp8.py)."""

    product = staticmethod(linear)

    def multiplied(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return (self.product if self.training and torch.is_grad_enabled() else linear)(x, weight, bias)


class Linear(nn.Linear, Multiplying):
    """x weightᵀ + bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.multiplied(x, self.weight, self.bias)

    def times(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs): without the bias."""
        return self.multiplied(x, self.weight, None)
