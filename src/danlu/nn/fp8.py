"""The product of a linear layer in 8 bits: both sides are rounded to fp8, their products are summed in fp32.

What goes forward is E4M3 (3 bits of mantissa, up to 448), gradients are E5M2 (2 bits, up to 57,344), as in "FP8 Formats
for Deep Learning" (2209.05433). Each tensor is scaled by its own largest magnitude, found anew each time, so that this
becomes the largest number of the format; one that is not finite stays so, and the step is refused by its norm.

Shapes: ... any leading axes · M rows · K inputs · N outputs
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from danlu.nn.linear import linear as plain

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SIDE = 16  # sides of a matrix are multiples of it: what cuBLAS reads at once
_LEAST = 1e-12  # of a largest magnitude: a tensor of zeros has a scale too


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., K), weight (N, K) -> x weightᵀ + bias (..., N) in the dtype of x."""
    y: Tensor = Product.apply(x, weight)
    return y if bias is None else y + bias.to(y.dtype)


class Product(torch.autograd.Function):
    """y = x wᵀ; dx = g w; dw = gᵀ x. The second side of each is laid out by columns, as the hardware wants it.

    Kept for backward are x and w as they were, which others keep anyway; they are rounded a second time there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows, scales = _rows(x), (_scale(x, E4M3), _scale(weight, E4M3))
        ctx.save_for_backward(x, weight, *scales)
        sides = _rounded(rows, scales[0], E4M3), _rounded(weight, scales[1], E4M3).t()
        y = torch._scaled_mm(*sides, *scales, out_dtype=x.dtype, use_fast_accum=True)
        return _shaped(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight, x_scale, w_scale = ctx.saved_tensors
        scale = _scale(grads[0], E5M2)
        grad, d_x, d_w = _rounded(_rows(grads[0]), scale, E5M2), None, None
        if ctx.needs_input_grad[0]:
            columns = _columns(_rounded(weight, w_scale, E4M3))
            d_x = _shaped(torch._scaled_mm(grad, columns, scale, w_scale, out_dtype=x.dtype), x)
        if ctx.needs_input_grad[1]:
            columns = _columns(_rounded(_rows(x), x_scale, E4M3))
            d_w = torch._scaled_mm(grad.t().contiguous(), columns, scale, x_scale, out_dtype=weight.dtype)
        return d_x, d_w


def _rows(x: Tensor) -> Tensor:
    """(..., K) -> (M, K), with rows of zeros up to a multiple of 16: they add nothing to a product over rows."""
    rows = x.reshape(-1, x.shape[-1])
    missing = -len(rows) % SIDE
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def _shaped(y: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_rows` for the result of a product: (M, N) -> (..., N)."""
    return y[: like.shape[:-1].numel()].view(*like.shape[:-1], -1)


def _columns(matrix: Tensor) -> Tensor:
    """The same matrix, stored by columns."""
    return matrix.t().contiguous().t()


def _scale(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """What numbers of the format are multiplied with to give the tensor's; a scalar on its device, in fp32."""
    return tensor.detach().abs().amax().float().clamp(min=_LEAST) / torch.finfo(dtype).max


def _rounded(tensor: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in units of its scale; what the division leaves above the largest number becomes that."""
    most = torch.finfo(dtype).max
    return (tensor.float() / scale).clamp(-most, most).to(dtype)


def layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers of the blocks of all stacks, by name; heads and embeddings are none of them."""
    for name, module in net.named_modules():
        if hasattr(module, "product") and ".blocks." in f".{name}":
            yield name, module


def switch(net: nn.Module, on: bool) -> None:
    """Let the blocks' linear layers multiply in fp8 while they learn, or as they are."""
    for _, layer in layers(net):
        layer.product = linear if on else plain  # type: ignore[assignment]
