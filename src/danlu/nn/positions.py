"""How a layer knows where a token stands: rotary angles on q and k, or bucketed distances added to the scores.

Shapes: B batch · T queries · S keys · H heads · E head_dim
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]  # cos (B, T, 1, E) and sin (B, T, 1, E/2) in the compute dtype


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding (2104.09864), half-split; `scaling` stretches it past the length it was trained on."""

    theta: float = 10_000.0
    local_theta: float = 0.0  # for layers with a window; 0 = theta
    scaling: str = "default"  # default | linear | llama3 | yarn
    factor: float = 1.0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    original_length: int = 0  # llama3, yarn: the context before stretching
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    magnitude: float = 0.0  # yarn: what cos and sin are multiplied by; 0 = 0.1 ln(factor) + 1


@dataclass(frozen=True)
class Buckets:
    """T5's relative positions (1910.10683): one learned score per head and log-spaced distance bucket."""

    count: int = 32
    longest: int = 128


def inverse_frequencies(rotary: Rotary, head_dim: int, local: bool) -> Tensor:
    """(E/2,) fp32, radians per position. Windowed (`local`) layers with their own theta are never stretched."""
    own = local and rotary.local_theta > 0
    theta = rotary.local_theta if own else rotary.theta
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    plain = 1.0 / theta**exponents
    return plain if own else SCALINGS[rotary.scaling](plain, rotary)


def _linear(plain: Tensor, rotary: Rotary) -> Tensor:
    """Position interpolation (2306.15595)."""
    return plain / rotary.factor


def _llama3(plain: Tensor, rotary: Rotary) -> Tensor:
    """Stretch long wavelengths fully, short ones not at all, those between smoothly (2407.21783)."""
    turns = rotary.original_length / (2 * math.pi / plain)  # by wavelength, to round as the stock models do
    smooth = (turns - rotary.low_freq_factor) / (rotary.high_freq_factor - rotary.low_freq_factor)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * plain / rotary.factor + smooth * plain


def _yarn(plain: Tensor, rotary: Rotary) -> Tensor:
    """YaRN (2309.00071): interpolate slow dimensions, keep fast ones, a linear ramp between them."""
    half = plain.numel()

    def dimension(turns: float) -> float:
        return half * math.log(rotary.original_length / (turns * 2 * math.pi)) / math.log(rotary.theta)

    low = max(math.floor(dimension(rotary.beta_fast)), 0)
    high = min(math.ceil(dimension(rotary.beta_slow)), 2 * half - 1)
    ramp = ((torch.arange(half, dtype=torch.float32, device=plain.device) - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain / rotary.factor * ramp + plain * (1 - ramp)


SCALINGS = {"default": lambda plain, rotary: plain, "linear": _linear, "llama3": _llama3, "yarn": _yarn}


def magnitude(rotary: Rotary, local: bool) -> float:
    """What YaRN multiplies cos and sin by, so that the attention's temperature stays; 1 where nothing is stretched."""
    if rotary.scaling != "yarn" or (local and rotary.local_theta > 0):
        return 1.0
    return rotary.magnitude or (0.1 * math.log(rotary.factor) + 1.0 if rotary.factor > 1 else 1.0)


def rotation(frequencies: Tensor, positions: Tensor, scale: float, dtype: torch.dtype) -> Rotation:
    """Angles of positions (B, T), computed in fp32 as the stock models do, ready for `rotate`."""
    angles = positions[..., None, None].float() * frequencies  # (B, T, 1, E/2)
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return torch.cat((cos, cos), dim=-1).to(dtype), sin.to(dtype)


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """(B, T, H, E) -> (B, H, T, E), contiguous: each pair (x_i, x_{i+E/2}) turned by its position's angle."""
    return Rotate.apply(x, *turn)


class Rotate(torch.autograd.Function):
    """Three kernels, no temporaries; the backward is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x.transpose(1, 2), cos.transpose(1, 2), sin.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0].transpose(1, 2), cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(x1 cos - x2 sin, x2 cos + x1 sin), contiguous in the order of axes that x has, whatever its strides."""
    half = x.shape[-1] // 2
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.mul(x, cos, out=out)
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out


class Distances(nn.Module):
    """The learned scores of T5's buckets, one per head, shared by all layers."""

    def __init__(self, buckets: Buckets, heads: int, two_sided: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets.count, heads)
        self.buckets, self.two_sided = buckets, two_sided

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Places of the queries (B, T) and keys (S,) -> (B, H, T, S), to be added to the scores."""
        index = bucket(keys - queries[:, :, None], self.buckets, self.two_sided)
        return self.table(index).permute(0, 3, 1, 2)


def bucket(distance: Tensor, buckets: Buckets, two_sided: bool) -> Tensor:
    """Index of the bucket of each distance (key - query): exact when near, logarithmic up to `longest`."""
    count, offset = buckets.count, torch.zeros_like(distance)
    if two_sided:
        count //= 2
        offset = (distance > 0).long() * count
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = count // 2
    far = torch.log(distance.float().clamp(min=1) / exact) / math.log(buckets.longest / exact) * (count - exact)
    far = (exact + far.long()).clamp(max=count - 1)
    return offset + torch.where(distance < exact, distance, far)
