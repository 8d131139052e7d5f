"""A U-Net that finds the noise in a picture: down in stages that halve it, and up again beside what was seen before.

Residual blocks that know how much noise there is (DDPM, 2006.11239, appendix B), by a scale and a shift of their norm
(2102.09672, section 3). What is large is seen in patches, whose pixels are channels.
Shapes: B pictures · C channels · H pixels on each side · W channels of a block · S its pixels on each side · E level
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.convolutions import GroupNorm, Layer
from danlu.nn.dropout import Dropout
from danlu.nn.linear import Linear

_FREQUENCIES, _FINEST = 10_000.0, 1000.0  # of the waves that tell a level: their range, and the level's


@dataclass(frozen=True)
class DenoiserConfig:
    """Stages of as many blocks each, on the way down and up; from stage to stage the picture is halved."""

    image: int  # pixels on each side
    channels: int  # of the picture
    width: int  # channels of the first stage; they double from stage to stage
    stages: int
    depth: int  # blocks of each stage
    patch: int = 1  # pixels on each side of what is one pixel to the first stage
    classes: int = 0  # of pictures, which it is told

    @property
    def dim(self) -> int:
        """Channels of the last stage."""
        return self.width * 2 ** (self.stages - 1)

    @property
    def pixel(self) -> int:
        """Channels of a patch."""
        return self.channels * self.patch**2

    @property
    def level(self) -> int:
        """Numbers that tell the blocks how much noise there is."""
        return 4 * self.width

    def side(self, stage: int) -> int:
        """Pixels on each side in a stage."""
        return self.image // self.patch >> stage

    def _stage(self, stage: int, inputs: int) -> Iterator[Layer]:
        width = self.width * 2**stage
        for place in range(self.depth):
            yield Layer(width if place else inputs, width, self.side(stage), halves=False)

    @property
    def down(self) -> Iterator[list[Layer]]:
        """The blocks of each stage on the way down; the last has one more, where it turns."""
        for stage in range(self.stages):
            turn = [Layer(self.dim, self.dim, self.side(stage), halves=False)] * (stage == self.stages - 1)
            yield [*self._stage(stage, self.width * 2**stage), *turn]

    @property
    def up(self) -> Iterator[list[Layer]]:
        """The blocks of each stage on the way up: the first of each reads what the way down saw, too."""
        for stage in reversed(range(self.stages - 1)):
            yield list(self._stage(stage, 2 * self.width * 2**stage))

    @property
    def blocks(self) -> list[Layer]:
        """All blocks, as they stand."""
        return [each for way in (self.down, self.up) for stage in way for each in stage]

    @property
    def _products(self) -> Iterator[tuple[int, int, int]]:
        """(numbers read for each one written, channels written, pixels on each side) of each convolution."""
        yield 9 * self.pixel, self.width, self.side(0)
        for each in self.blocks:
            yield 9 * each.inputs, each.outputs, each.side
            yield 9 * each.outputs, each.outputs, each.side
            if each.inputs != each.outputs:
                yield each.inputs, each.outputs, each.side
        for stage in range(1, self.stages):
            narrow, wide = self.width * 2 ** (stage - 1), self.width * 2**stage
            yield 9 * narrow, wide, self.side(stage)
            yield wide, narrow, self.side(stage)
        yield 9 * self.width, self.pixel, self.side(0)

    @property
    def flops(self) -> float:
        """Operations of a forward pass over one picture."""
        return sum(2.0 * read * written * side**2 for read, written, side in self._products)

    @property
    def kept(self) -> int:
        """Numbers kept of one picture for backward: what goes into convolutions, norms and activations."""
        return sum((read // 9 + 4 * written) * side**2 for read, written, side in self._products)


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))) · (1 + scale) + shift)); scale and shift are of the level of noise."""

    def __init__(self, layer: Layer, level: int, dropout: float) -> None:
        super().__init__()
        self.norm = GroupNorm(layer.inputs)
        self.conv = nn.Conv2d(layer.inputs, layer.outputs, 3, padding=1, bias=False)
        self.level = Linear(level, 2 * layer.outputs)
        self.last = GroupNorm(layer.outputs)
        self.dropout = Dropout(dropout)
        self.second = nn.Conv2d(layer.outputs, layer.outputs, 3, padding=1, bias=False)
        same = layer.inputs == layer.outputs
        self.around = None if same else nn.Conv2d(layer.inputs, layer.outputs, 1, bias=False)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, inputs, S, S), (B, E) -> (B, outputs, S, S)."""
        scale, shift = self.level(level)[:, :, None, None].chunk(2, 1)
        y = self.last(self.conv(F.silu(self.norm(x)))) * (1 + scale) + shift
        around = x if self.around is None else self.around(x)
        return around + self.second(self.dropout(F.silu(y)))


class Level(nn.Module):
    """How much noise there is, from 0 (none) to 1, as waves of many lengths, and two layers on them."""

    def __init__(self, waves: int, level: int) -> None:
        super().__init__()
        self.waves = waves
        self.first, self.second = Linear(waves, level), Linear(level, level)

    def forward(self, share: Tensor, label: Tensor | float = 0.0) -> Tensor:
        """(B,), and what stands for a class (B, E) -> (B, E)."""
        half = self.waves // 2
        places = torch.arange(half, device=share.device, dtype=torch.float32) / half
        angles = share.float()[:, None] * _FINEST * torch.exp(-math.log(_FREQUENCIES) * places)
        waves = torch.cat((angles.sin(), angles.cos()), 1).to(self.first.weight.dtype)
        return F.silu(self.second(F.silu(self.first(waves))) + label)


class Denoiser(nn.Module):
    """A picture with noise, how much of it, and its class where that is told -> the noise.

    The last row of the table of classes stands for none (2207.12598).
    """

    def __init__(self, config: DenoiserConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**stage for stage in range(config.stages)]
        self.level = Level(config.width, config.level)
        self.label = nn.Embedding(config.classes + 1, config.level) if config.classes else None
        self.stem = nn.Conv2d(config.pixel, config.width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(Block(each, config.level, dropout) for each in config.blocks)
        pairs = list(pairwise(widths))
        self.lower = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in pairs)
        self.lift = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in reversed(pairs))
        self.norm = GroupNorm(config.width)
        self.out = nn.Conv2d(config.width, config.pixel, 3, padding=1, bias=False)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return self.stem.weight.dtype

    def forward(self, pixels: Tensor, share: Tensor, classes: Tensor | None = None) -> Tensor:
        """pixels (B, C, H, H), share (B,), classes (B,) -> (B, C, H, H). Raises ValueError for another size."""
        config = self.config
        if pixels.shape[-2:] != (config.image, config.image):
            raise ValueError(f"made for {config.image} pixels on each side; got {tuple(pixels.shape[-2:])}")
        label: Tensor | float = 0.0
        if self.label is not None:
            label = self.label(
                share.new_full(share.shape, config.classes, dtype=torch.long) if classes is None else classes
            )
        x, level = self.stem(F.pixel_unshuffle(pixels.to(self.dtype), config.patch)), self.level(share, label)
        blocks, seen = iter(self.blocks), list[Tensor]()
        for stage, layers in enumerate(config.down):
            if stage:
                seen.append(x)
                x = self.lower[stage - 1](x)
            for _ in layers:
                x = next(blocks)(x, level)
        for lift, layers in zip(self.lift, config.up, strict=True):
            x = torch.cat((F.interpolate(lift(x), scale_factor=2.0), seen.pop()), 1)
            for _ in layers:
                x = next(blocks)(x, level)
        return F.pixel_shuffle(self.out(F.silu(self.norm(x))), config.patch)
