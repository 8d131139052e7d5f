"""Convolutions over a picture, in stages that halve it, each with a norm over groups of channels (1803.08494).

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

from danlu.nn.groups import group_norm
from danlu.nn.norm import layer_norm, wide
from danlu.nn.stems import fitting

KINDS = ("plain", "residual")
_GROUPS = 8  # of channels that a norm takes together, where they can be divided so
_EPS = 1e-5


@dataclass(frozen=True)
class Layer:
    """A block: channels in and out, pixels on each side of what goes out, and whether it halves them first.

    `stride` is that of its first convolution.
    """

    inputs: int
    outputs: int
    side: int
    halves: bool
    stride: int = 1


@dataclass(frozen=True)
class ConvolutionsConfig:
    """Stages of as many blocks each; from stage to stage the picture is halved and the channels double."""

    image: int  # pixels on each side
    channels: int  # of the picture
    width: int  # channels of the first stage
    stages: int
    depth: int  # blocks of each stage
    kind: str = "plain"  # plain (a convolution; LeCun 1998) | residual (two, and around them what came in; 1512.03385)
    stem: int = 1  # stride of the very first convolution: pixels from one place of the first stage to the next

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")

    @property
    def dim(self) -> int:
        """Channels of the last stage."""
        return self.width * 2 ** (self.stages - 1)

    @property
    def side(self) -> int:
        """Places on each side of the first stage."""
        return -(-self.image // self.stem)

    @property
    def last(self) -> int:
        """Places on each side of the last stage."""
        return self.side >> (self.stages - 1)

    @property
    def layers(self) -> Iterator[Layer]:
        """The blocks; residual ones stand behind one plain convolution."""
        before = self.channels
        if self.kind == "residual":
            yield Layer(before, self.width, self.side, False, self.stem)
            before = self.width
        for stage in range(self.stages):
            for place in range(self.depth):
                stride = 1 if self.kind == "residual" or stage + place else self.stem
                yield Layer(before, self.width * 2**stage, self.side >> stage, stage > 0 and not place, stride)
                before = self.width * 2**stage

    @property
    def products(self) -> Iterator[tuple[int, int, int]]:
        """(numbers read for each one written, channels written, pixels on each side) of each convolution."""
        for place, layer in enumerate(self.layers):
            yield 9 * layer.inputs, layer.outputs, layer.side
            if self.kind == "residual" and place:
                yield 9 * layer.outputs, layer.outputs, layer.side
                if layer.inputs != layer.outputs:
                    yield layer.inputs, layer.outputs, layer.side

    @property
    def flops(self) -> float:
        """Operations of a forward pass over one picture."""
        return sum(2.0 * read * written * side**2 for read, written, side in self.products)

    @property
    def kept(self) -> int:
        """Numbers kept of one picture for backward: what goes into convolutions, norms, activations and pooling."""
        return sum((read // 9 + 3 * written) * side**2 for read, written, side in self.products)


class GroupNorm(nn.Module):
    """(x - mean) / std over groups of channels and all their pixels, · weight + bias; of each picture alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = math.gcd(channels, _GROUPS)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, H) -> the same."""
        return group_norm(x, self.groups, self.weight, self.bias, _EPS)


class Pointwise(nn.Conv2d):
    """A convolution of 1 x 1 pixels, without bias: on a processor a product of matrices.

    oneDNN's own, of fp32 and few channels that lie innermost, ends the process where it steps over pixels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, H) -> (B, outputs, H / stride, same)."""
        if not x.is_cpu:
            return super().forward(x)
        rows = x[:, :, :: self.stride[0], :: self.stride[1]].permute(0, 2, 3, 1)
        return F.linear(rows, self.weight.flatten(1)).permute(0, 3, 1, 2)


class Standardized(nn.Conv2d):
    """A convolution of 3 x 3 pixels, without bias, whose filters have mean 0 and one length (1903.10520).

    Beside norms over groups it stands in for what a norm over the batch does to training.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, H) -> (B, outputs, H / stride, same)."""
        return self._conv_forward(x, self.filters().to(x.dtype), None)

    def filters(self) -> Tensor:
        """The filters used (outputs, inputs, 3, 3): each sums to 0, its squares to 2 (1502.01852).

        A norm over the numbers of a filter, by the kernel of norms: statistics in fp32, one pass each way.
        """
        rows = self.weight.flatten(1)
        count = rows.shape[1]
        length = torch.full((count,), math.sqrt(2 / count), dtype=wide(rows), device=rows.device)
        return layer_norm(rows, length, None, _EPS / count).view_as(self.weight)


class Convolution(nn.Module):
    """relu(norm(conv(x))), after halving x where a stage begins."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.halves = layer.halves
        self.conv = Standardized(layer.inputs, layer.outputs, layer.stride)
        self.norm = GroupNorm(layer.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, H) -> (B, outputs, H or H / 2, same)."""
        x = F.max_pool2d(x, 2) if self.halves else x
        return F.relu_(self.norm(self.conv(x)))


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))); x is projected where its shape changes (1512.03385, option B)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        stride = 2 if layer.halves else 1
        self.conv = Standardized(layer.inputs, layer.outputs, stride)
        self.norm = GroupNorm(layer.outputs)
        self.second = Standardized(layer.outputs, layer.outputs)
        self.last = GroupNorm(layer.outputs)
        same = layer.inputs == layer.outputs and stride == 1
        self.around = None if same else Pointwise(layer.inputs, layer.outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, H) -> (B, outputs, H or H / 2, same)."""
        y = F.relu_(self.norm(self.conv(x)))
        x = x if self.around is None else self.around(x)
        return F.relu_(self.last(self.second(y)).add_(x))


class Convolutions(nn.Module):
    """All stages, in place of an embedding: the pixels of the last one are the places."""

    reads: ClassVar = "pixel_values"

    def __init__(self, config: ConvolutionsConfig) -> None:
        super().__init__()
        self.config = config
        kinds = [Convolution, Residual if config.kind == "residual" else Convolution]
        self.blocks = nn.ModuleList(kinds[min(place, 1)](layer) for place, layer in enumerate(config.layers))

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return next(self.parameters()).dtype

    def forward(self, pixels: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """pixels (B, C, H, H) -> (B, places, D); while it learns, of a smaller picture fewer.

        Raises ValueError for a picture of another size.
        """
        fitting(pixels, self.config.image, self.training)
        return self.stages(pixels)[-1].flatten(2).transpose(1, 2)

    def check(self, pixels: Tensor) -> None:
        """Raise ValueError for pictures of another size."""
        fitting(pixels, self.config.image, learning=False)

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """What each stage makes of pixels (B, C, H, H): (B, channels, side, side) each, the finest first."""
        x, found = _laid(pixels.to(self.dtype)), list[Tensor]()
        for block, layer in zip(self.blocks, self.config.layers, strict=True):
            if layer.halves:
                found.append(x)
            x = _laid(block(x))  # of grey pictures the first block has not seen that
        return [*found, x]


def _laid(x: Tensor) -> Tensor:
    """With channels innermost on a processor: its convolutions read and write them so."""
    return x.contiguous(memory_format=torch.channels_last) if x.is_cpu else x
