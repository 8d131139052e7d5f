"""Normalisation over groups of channels (1803.08494), statistics at least in fp32.

Shapes: N pictures · C channels · P their pixels · G groups · D = C / G channels of each
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NARROW = 16  # channels of a group below which torch's kernels take single numbers, where channels lie innermost
_WHOLE = 1024  # pixels from which its forward kernel takes all channels together


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean) / std of each picture's groups · weight + bias: (N, C, H, W) in the dtype of x."""
    if not x.is_cpu:
        return F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
    innermost = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if innermost and x.shape[1] // groups < NARROW:
        return Narrow.apply(x, groups, weight, bias, eps)
    return F.group_norm(x, groups, weight, bias, eps)  # on a processor the vectors may be wider than x


class Narrow(torch.autograd.Function):
    """With few channels in a group and channels innermost, out of sums over pixels that run over all channels.

    With s, b the sums over a group of weight · x · dy and weight · dy, and M = P · D:
    dx = weight / std · dy + p x + q, p = (b mean - s) / (std³ M), q = -p mean - b / (std M).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        if x.shape[2] * x.shape[3] >= _WHOLE:
            n, channels, pixels = *x.shape[:2], x.shape[2] * x.shape[3]
            y, mean, inverse = torch.native_group_norm(x, weight, bias, n, channels, pixels, groups, eps)
        else:
            y, mean, inverse = _normed(x, groups, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        grad, rows = _rows(grads[0].contiguous(memory_format=torch.channels_last)), _rows(x)
        with_x, alone = (each.sum(1).to(mean.dtype) for each in (grad * rows, grad))  # (N, C)
        size = rows.shape[1] * rows.shape[2] / mean.shape[1]
        s, b = (_grouped(each * weight, mean) for each in (with_x, alone))
        p = (b * mean - s) * inverse**3 / size
        q = -p * mean - b * inverse / size
        p, q, inverse, mean = (_each(value, x.shape[1]) for value in (p, q, inverse, mean))
        factor, p, q = (value.to(x.dtype)[:, None] for value in (inverse * weight, p, q))
        d_x = torch.addcmul(q, rows, p).addcmul_(grad, factor)
        d_weight = ((with_x - alone * mean) * inverse).sum(0).to(weight.dtype)
        return d_x.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), None, d_weight, alone.sum(0).to(weight.dtype), None


def _normed(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """What is normed (N, C, H, W), and mean and 1 / std (N, G)."""
    rows = _rows(x).to(torch.promote_types(x.dtype, torch.float32))
    few = rows.new_empty(len(x), groups)
    size = rows.shape[1] * rows.shape[2] / groups
    mean, square = (_grouped(each.sum(1), few) / size for each in (rows, rows * rows))
    inverse = torch.rsqrt((square - mean**2).clamp(min=0) + eps)
    factor = _each(inverse, x.shape[1]) * weight
    shift = bias - _each(mean, x.shape[1]) * factor
    y = torch.empty_like(x)  # no view: what comes next may write on it
    _rows(y).copy_(torch.addcmul(shift[:, None], rows, factor[:, None]))
    return y, mean, inverse


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, P, C), the same memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _grouped(values: Tensor, like: Tensor) -> Tensor:
    """(N, C) -> (N, G): sums."""
    return values.unflatten(1, (like.shape[1], -1)).sum(-1)


def _each(values: Tensor, channels: int) -> Tensor:
    """(N, G) -> (N, C)."""
    return values.repeat_interleave(channels // values.shape[1], 1)
