"""Convolutions over a picture, in stages that halve it: plain ones (LeCun 1998), each with a norm (1803.08494).

Shapes: B pictures · C channels · H height and width in pixels · D channels of the last stage
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROUPS = 8  # of channels that a norm takes together, where they can be divided so
_EPS = 1e-5


@dataclass(frozen=True)
class ConvolutionsConfig:
    """Stages of as many convolutions each; from stage to stage the picture is halved and the channels double."""

    image: int  # pixels on each side
    channels: int  # of the picture
    width: int  # channels of the first stage
    stages: int
    depth: int  # convolutions of each stage

    @property
    def dim(self) -> int:
        """Channels of the last stage."""
        return self.width * 2 ** (self.stages - 1)

    @property
    def layers(self) -> Iterator[tuple[int, int, int]]:
        """(channels that come in, channels that go out, pixels on each side) of each convolution."""
        before = self.channels
        for stage in range(self.stages):
            for _ in range(self.depth):
                yield before, self.width * 2**stage, self.image >> stage
                before = self.width * 2**stage

    @property
    def flops(self) -> float:
        """Operations of a forward pass over one picture."""
        return sum(2.0 * 9 * inputs * outputs * side**2 for inputs, outputs, side in self.layers)

    @property
    def kept(self) -> int:
        """Numbers kept of one picture for backward: what goes into convolutions, norms, activations and pooling."""
        return sum((inputs + 3 * outputs) * side**2 for inputs, outputs, side in self.layers)


class Convolution(nn.Module):
    """relu(norm(conv(x))), after halving x where a stage begins."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = GroupNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, H) -> (B, outputs, H or H / 2, same)."""
        x = F.max_pool2d(x, 2) if self.halve else x
        return F.relu(self.norm(self.conv(x)))


class GroupNorm(nn.Module):
    """(x - mean) / std over groups of channels and all their pixels, · weight + bias; of each picture alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = math.gcd(channels, _GROUPS)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, H) -> the same."""
        return F.group_norm(x, self.groups, self.weight.to(x.dtype), self.bias.to(x.dtype), _EPS)


class Convolutions(nn.Module):
    """All stages, in place of an embedding: the pixels of the last one are the places."""

    reads: ClassVar = "pixel_values"

    def __init__(self, config: ConvolutionsConfig) -> None:
        super().__init__()
        self.config = config
        layers = [(inputs, outputs) for inputs, outputs, _ in config.layers]
        self.blocks = nn.ModuleList(
            Convolution(*each, place > 0 and place % config.depth == 0) for place, each in enumerate(layers)
        )

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return next(self.parameters()).dtype

    def forward(self, pixels: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """pixels (B, C, H, H) -> (B, places, D). Raises ValueError for a picture of another size."""
        if pixels.shape[-2:] != (self.config.image, self.config.image):
            raise ValueError(f"made for {self.config.image} pixels on each side; got {tuple(pixels.shape[-2:])}")
        x = pixels.to(self.dtype)
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2)
