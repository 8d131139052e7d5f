"""Images, sounds and rows of tables to vectors, in place of a table of tokens.

Shapes: B batch · C channels · H height and width in pixels · N patches · M mel bands · F frames · D width of the stack
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.embed import table_of
from danlu.nn.linear import linear
from danlu.nn.norm import Norm

PLACES = ("embed.positions.weight", "head.positions.weight")  # tables of places in the state of a network


@dataclass(frozen=True)
class PatchesConfig:
    """Squares of an image (ViT, 2010.11929), after a class token where there is one, with a learned table of places.

    One square alone, without token and places, is a linear layer on all pixels.
    """

    image: int  # pixels on each side
    patch: int  # pixels on each side
    channels: int = 3
    bias: str = "all"  # none | all
    norm: str = "none"  # none | layer (CLIP)
    norm_eps: float = 1e-5
    tokens: int = 1  # class tokens before the squares
    places: str = "learned"  # learned | none

    def __post_init__(self) -> None:
        if self.patch < 1 or self.image < self.patch:
            raise ValueError(f"an image of {self.image} pixels holds no patch of {self.patch}")

    @property
    def count(self) -> int:
        """Patches, and class tokens."""
        return (self.image // self.patch) ** 2 + self.tokens


@dataclass(frozen=True)
class FramesConfig:
    """Frames of sound (Whisper, 2212.04356): two convolutions, the second halving time, and a table of places."""

    mels: int
    positions: int  # of places after the halving

    @property
    def count(self) -> int:
        return self.positions


@dataclass(frozen=True)
class CellsConfig:
    """Cells of a row: each an id with a value, which its vector is multiplied by (a number; a category has 1)."""

    vocab: int
    fields: int  # cells of a row


class Cells(nn.Module):
    """One vector per cell. Their sum over a row is a linear layer on its numbers and its categories, one-hot."""

    reads: ClassVar = "input_ids"

    def __init__(self, config: CellsConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.cells = table_of(config.vocab, dim)
        self.bias = nn.Parameter(torch.zeros(dim))

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return self.cells.weight.dtype

    def forward(self, ids: Tensor, values: Tensor) -> Tensor:
        """ids, values (B, T) -> (B, T, D)."""
        return self.cells(ids) * values[..., None].to(self.dtype)


class Patches(nn.Module):
    """One vector per patch, behind that of the class token."""

    reads: ClassVar = "pixel_values"

    def __init__(self, config: PatchesConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        side = config.patch
        self.project = nn.Conv2d(config.channels, dim, side, side, bias=config.bias == "all")
        self.token = nn.Parameter(torch.zeros(dim)) if config.tokens else None
        self.positions = table_of(config.count, dim) if config.places == "learned" else None
        self.norm = Norm(dim, config.norm, config.norm_eps) if config.norm != "none" else None

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return self.project.weight.dtype

    def forward(self, pixels: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """pixels (B, C, H, H) -> (B, 1 + N, D), or (B, N, D) without a class token.

        While it learns, a smaller image has fewer patches, with places between the learned ones. Raises ValueError for
        any other size.
        """
        seen = replace(self.config, image=fitting(pixels, self.config.image, self.training))
        x = linear(self._cut(pixels.to(self.dtype)), self.project.weight.flatten(1), self.project.bias)
        if self.token is not None:
            x = torch.cat((self.token.to(self.dtype).expand(len(x), 1, -1), x), 1)
        if self.positions is not None:
            x = x + resampled(self.positions.weight, self.config.tokens, seen)
        return x if self.norm is None else self.norm(x)

    def _cut(self, pixels: Tensor) -> Tensor:
        """(B, C, H, H) -> (B, N, C · patch²): a convolution whose squares do not overlap is a product of matrices."""
        side = self.config.patch
        rows = pixels.shape[-1] // side
        whole = pixels[..., : rows * side, : rows * side].unflatten(-2, (rows, side)).unflatten(-1, (rows, side))
        return whole.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def fitting(pixels: Tensor, image: int, learning: bool) -> int:
    """The side of square pixels (B, C, H, H): what a network was made for, or less while it learns; else ValueError."""
    height, width = pixels.shape[-2:]
    if height != width or width > image or (width < image and not learning):
        raise ValueError(f"made for {image} pixels on each side; got {(height, width)}")
    return width


def resampled(places: Tensor, tokens: int, image: PatchesConfig) -> Tensor:
    """A table of places (tokens + N, D) for the squares of another image: bicubic between the old ones, as
    interpolate_pos_encoding of transformers has it; those of class tokens stay."""
    before, side = math.isqrt(len(places) - tokens), image.image // image.patch
    if side == before:
        return places
    wide = places.to(torch.promote_types(places.dtype, torch.float32))
    between = _between(before, side, wide.dtype, wide.device) @ wide[tokens:]
    return torch.cat((places[:tokens], between.to(places.dtype)))


@cache
def _between(before: int, side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(side², before²): the share of each old place in each new one.

    As a product, since torch's own backward pass of this on a GPU does not repeat itself bit by bit.
    """
    each = torch.eye(before**2, dtype=dtype, device=device).view(-1, 1, before, before)
    return F.interpolate(each, size=(side, side), mode="bicubic", align_corners=False).flatten(1).T.contiguous()


class Frames(nn.Module):
    """One vector per two frames; the table of places is fixed, as published models have it."""

    reads: ClassVar = "input_features"

    def __init__(self, config: FramesConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv1d(config.mels, dim, 3, padding=1)
        self.second = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.positions = table_of(config.positions, dim).requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return self.first.weight.dtype

    def forward(self, features: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """features (B, M, F) -> (B, F / 2, D). Raises ValueError where F / 2 is not the number of places."""
        x = F.gelu(self.second(F.gelu(self.first(features.to(self.dtype))))).transpose(1, 2)
        if x.shape[1] != self.config.positions:
            raise ValueError(f"made for {2 * self.config.positions} frames; got {features.shape[-1]}")
        return x + self.positions.weight


def waves(count: int, width: int) -> Tensor:
    """(count, width) fp32: sines, then cosines, of wavelengths from 2 pi to 20000 pi (Whisper's first table)."""
    half = width // 2
    rates = torch.exp(-math.log(10_000.0) / (half - 1) * torch.arange(half, dtype=torch.float32))
    angles = torch.arange(count, dtype=torch.float32)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)
