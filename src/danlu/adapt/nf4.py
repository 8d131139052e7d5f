"""Frozen weights in 4 bits, for adapters to be trained beside (QLoRA, 2305.14314).

Shapes: ... any leading axes · I inputs · O outputs · N values of a matrix, row after row · B blocks of them
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from danlu.adapt.graft import linears
from danlu.nn.network import Network

BLOCK = 64  # values that share a scale
SCALES = 256  # scales that share a scale of their own, where they are quantized again
_OFFSET = 0.9677083  # the outermost quantile: 1 - (1/30 + 1/32) / 2 (the paper's appendix E)
_FLOAT8_MAX = 448.0


@cache
def levels() -> tuple[float, ...]:
    """The 16 values of NormalFloat in [-1, 1]: quantiles of a normal distribution, 8 and 9 to either side."""
    above, below = _quantiles(9), _quantiles(8)
    return tuple(value / above[0] for value in (*(-x for x in below), 0.0, *reversed(above)))


def _quantiles(count: int) -> list[float]:
    """Equally likely quantiles from the outermost to the middle, without the middle."""
    steps = [_OFFSET + (0.5 - _OFFSET) * i / (count - 1) for i in range(count - 1)]
    return [NormalDist().inv_cdf(step) for step in steps]


@dataclass(frozen=True)
class Nf4:
    """Put the linears of the blocks into 4 bits; with `double`, their scales into 8 (4.13 bits a weight in all)."""

    double: bool = True

    def __post_init__(self) -> None:
        if type(self.double) is not bool:
            raise ValueError(f"double must be true or false; got {self.double!r}")

    def __call__(self, network: Network, generator: torch.Generator) -> Network:
        """In place; `generator` is not used."""
        for parent, name, layer in linears(network):
            setattr(parent, name, Nf4Linear(layer, double=self.double))
        network.requires_grad_(False)
        return network


class Nf4Linear(nn.Module):
    """A frozen linear: two codes a byte, and a scale for each block of 64 values."""

    codes: Tensor  # uint8 (N / 2,), the first of two in the high bits
    scales: Tensor  # fp32 (B,), or float8 as uint8 where they are quantized again
    outer: Tensor | None  # fp32 (2, B / 256): of each 256 scales their mean and their own scale

    def __init__(self, layer: nn.Linear, *, double: bool) -> None:
        super().__init__()
        self.shape = layer.weight.shape
        codes, scales = encoded(layer.weight.detach().float())
        inner, outer = encoded_scales(scales) if double else (scales, None)
        for name, tensor in (("codes", codes), ("scales", inner), ("outer", outer)):
            self.register_buffer(name, tensor)
        self.bias = layer.bias

    @property
    def coded(self) -> int:
        """How many weights the codes stand for."""
        return math.prod(self.shape)

    @property
    def weight(self) -> Tensor:
        """(O, I) in fp32, or what the scales are wider than that."""
        return self.wide((self.scales if self.outer is None else self.outer).dtype)

    def wide(self, dtype: torch.dtype) -> Tensor:
        """The weight (O, I) that the codes stand for."""
        scales = self.scales if self.outer is None else decoded_scales(self.scales, self.outer)
        return decoded(self.codes, scales, self.shape, dtype)

    def times(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O): without the bias."""
        y: Tensor = Product.apply(x, self)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        y = self.times(x)
        return y if self.bias is None else y + self.bias.to(x.dtype)


class Product(torch.autograd.Function):
    """x weightᵀ; the wide weight is made again for backward, not kept: else 4 bits would save nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.wide(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.layer.wide(grads[0].dtype), None


def encoded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (O, I) -> codes uint8 (N / 2,) and scales (B,): the largest magnitude of each block is 1."""
    flat = weight.flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    unit = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    table = torch.tensor(levels(), device=weight.device)
    codes = torch.bucketize(unit, (table[1:] + table[:-1]) / 2).to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scales


def decoded(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The way back, rounded once."""
    table = torch.tensor(levels(), device=codes.device)
    both = torch.stack([codes >> 4, codes & 15], 1).int()
    wide = table[both].view(-1, BLOCK) * scales[:, None]
    return wide.flatten()[: math.prod(shape)].view(shape).to(dtype)


def encoded_scales(scales: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) -> float8 (e4m3) as uint8 (B,), and of every 256 their mean and the scale of what differs from it."""
    groups = F.pad(scales, (0, -len(scales) % SCALES)).view(-1, SCALES)
    real = F.pad(torch.ones_like(scales), (0, -len(scales) % SCALES)).view(-1, SCALES)
    mean = groups.sum(1) / real.sum(1)
    apart = (groups - mean[:, None]) * real
    scale = apart.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / _FLOAT8_MAX
    inner = (apart / scale[:, None]).clamp(-_FLOAT8_MAX, _FLOAT8_MAX).to(torch.float8_e4m3fn)
    return inner.view(torch.uint8).flatten()[: len(scales)], torch.stack([mean, scale])


def decoded_scales(inner: Tensor, outer: Tensor) -> Tensor:
    """The way back (B,)."""
    each = outer.repeat_interleave(SCALES, 1)[:, : len(inner)]
    return inner.view(torch.float8_e4m3fn).to(each.dtype) * each[1] + each[0]
