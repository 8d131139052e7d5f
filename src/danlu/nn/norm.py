"""Normalisation over the last axis, statistics always in fp32 (fp64 for fp64 input).

Shapes: ... any leading axes · N their product (rows) · D the normalised axis
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**13  # elements from which our kernels win on a CPU; below, calls cost more than work


class Norm(nn.Module):
    """`layer` (LayerNorm, 1607.06450), `rms` (RMSNorm, 1910.07467) or `rms1` (RMSNorm, weight stored minus 1)."""

    def __init__(self, dim: int, kind: str, eps: float) -> None:
        super().__init__()
        self.kind, self.eps = kind, eps
        self.weight = nn.Parameter(torch.zeros(dim) if kind == "rms1" else torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D) in the dtype of x; the weight may be wider than x."""
        if self.kind == "layer":
            return layer_norm(x, self.weight, self.bias, self.eps)
        return rms_norm(x, self.weight + 1 if self.kind == "rms1" else self.weight, self.eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """(x - mean) / std · weight + bias."""
    if x.is_cpu and x.numel() >= LARGE:
        return LayerNorm.apply(x, weight, bias, eps)
    bias = None if bias is None else bias.to(x.dtype)
    return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias, eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) · weight."""
    if x.is_cpu and x.numel() >= LARGE:
        return RmsNorm.apply(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


class LayerNorm(torch.autograd.Function):
    """torch's CPU kernels, except that the gradients of the vectors are not summed over the rows in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        bias = None if bias is None else bias.to(wide(x))
        y, mean, inverse = torch.native_layer_norm(rows, weight.shape, weight.to(wide(x)), bias, eps)
        ctx.save_for_backward(rows, mean, inverse, weight)
        ctx.eps = eps
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, mean, inverse, weight = ctx.saved_tensors
        grad = grads[0].reshape(rows.shape)
        d_rows = _d_rows(grad, rows, mean, inverse, weight)
        d_weight = d_bias = None
        if ctx.needs_input_grad[1]:
            unit = torch.native_layer_norm(rows, weight.shape, None, None, ctx.eps)[0]
            d_weight = (grad * unit).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            d_bias = grad.sum(0).to(weight.dtype)
        return d_rows.view(grads[0].shape), d_weight, d_bias, None


class RmsNorm(torch.autograd.Function):
    """RMSNorm out of torch's fused CPU kernels: F.rms_norm has none there and is several times slower.

    Forward: batch_norm in evaluation mode with one channel per row, mean 0 and variance = the row's mean square.
    Backward: layer_norm's with mean 0, plus the one term in which the two norms differ.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        variance = torch.linalg.vector_norm(rows, dim=-1, dtype=wide(x)).square_().div_(rows.shape[1])
        ctx.save_for_backward(rows, variance, weight)
        ctx.eps = eps
        return (_unit(rows, variance, eps) * weight.to(x.dtype)).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, variance, weight = ctx.saved_tensors
        grad = grads[0].reshape(rows.shape)
        inverse = torch.rsqrt(variance + ctx.eps)[:, None]
        d_rows = _d_rows(grad, rows, torch.zeros_like(inverse), inverse, weight)
        # LayerNorm's gradient also subtracts mean(grad · weight), which RMSNorm does not: give it back.
        mean = (grad @ weight.to(grad.dtype))[:, None] * inverse / rows.shape[1]
        d_rows.add_(mean.to(grad.dtype))
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (grad * _unit(rows, variance, ctx.eps)).sum(0).to(weight.dtype)
        return d_rows.view(grads[0].shape), d_weight, None


def _unit(rows: Tensor, variance: Tensor, eps: float) -> Tensor:
    """rows (N, D) / sqrt(variance (N,) + eps)."""
    return F.batch_norm(rows[None], torch.zeros_like(variance), variance, eps=eps)[0]


def _d_rows(grad: Tensor, rows: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor) -> Tensor:
    """LayerNorm's gradient of its input; the kernel's sums for the vectors are in bf16 and off by some 10 %."""
    wanted = [True, False, False]
    weight = weight.to(inverse.dtype)
    return torch.ops.aten.native_layer_norm_backward(grad, rows, weight.shape, mean, inverse, weight, None, wanted)[0]


def wide(x: Tensor) -> torch.dtype:
    """At least fp32."""
    return torch.promote_types(x.dtype, torch.float32)
