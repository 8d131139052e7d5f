"""From the states of the patches that were seen to the pixels of all: a masked autoencoder's decoder (2111.06377).

Shapes: B pictures · N patches, G on each side · V those that are seen · D width of the encoder · W width of the decoder
· P numbers of a patch, pixel by pixel, of each its channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danlu.nn.config import TransformerConfig
from danlu.nn.embed import table_of
from danlu.nn.linear import Linear
from danlu.nn.transformer import Transformer

_EPS = 1e-6  # of a patch's variance


@dataclass(frozen=True)
class PixelsConfig:
    """A stack that paints, how many patches a picture has, and numbers of each."""

    core: TransformerConfig
    patches: int
    numbers: int
    share: float = 0.75  # of the patches that are hidden
    target: str = "patch"  # patch: pixels standardised by the patch's own mean and deviation | picture: as they are

    @property
    def seen(self) -> int:
        """Patches that are not hidden."""
        return max(1, int(self.patches * (1 - self.share)))

    @property
    def hides(self) -> int:
        """Patches that are."""
        return self.patches - self.seen


class Pixels(nn.Module):
    """A token in the place of each patch that was not seen, a table of places, a stack, a linear layer."""

    def __init__(self, config: PixelsConfig, dim: int) -> None:
        super().__init__()
        self.config, width = config, config.core.dim
        self.enter = Linear(dim, width)
        self.token = nn.Parameter(torch.zeros(width))
        self.positions = table_of(config.patches + 1, width)
        self.core = Transformer(config.core)
        self.output = Linear(width, config.numbers)

    @property
    def shapes(self) -> list[torch.Size]:
        """Of its weights."""
        return [each.shape for each in self.parameters()]

    def forward(self, states: Tensor, shown: Tensor | None = None) -> Tensor:
        """States (B, 1 + V, D) of the class token and the patches in the places shown (B, V), of all where there is
        none -> (B, N, P)."""
        x = self.enter(states)
        if shown is not None:
            blank = self.token.to(x.dtype).expand(len(x), self.config.patches, -1)
            x = torch.cat((x[:, :1], blank.scatter(1, along(shown, x), x[:, 1:])), 1)
        painted: Tensor = self.output(self.core(x + self.positions.weight)[:, 1:])
        return painted


def along(places: Tensor, states: Tensor) -> Tensor:
    """Places (B, V) as an index of the second axis of states (B, ., D): (B, V, D)."""
    return places[..., None].expand(-1, -1, states.shape[-1])


def wanted(pixels: Tensor, side: int, target: str) -> tuple[Tensor, Tensor, Tensor]:
    """What is to be painted, of pixels (B, C, H, H) in squares of `side`: (B, N, P); and mean and deviation (B, N, 1)
    of each, by which what is painted becomes pixels again."""
    numbers = cut(pixels, side)
    if target == "picture":
        return numbers, numbers.new_zeros(()), numbers.new_ones(())
    mean, deviation = numbers.mean(-1, keepdim=True), (numbers.var(-1, keepdim=True) + _EPS).sqrt()
    return (numbers - mean) / deviation, mean, deviation


def cut(pixels: Tensor, side: int) -> Tensor:
    """(B, C, H, H) -> (B, N, P); what is left of H beyond whole squares is no part of any."""
    rows = pixels.shape[-1] // side
    whole = pixels[..., : rows * side, : rows * side].unflatten(-2, (rows, side)).unflatten(-1, (rows, side))
    return whole.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def joined(numbers: Tensor, pixels: Tensor, side: int) -> Tensor:
    """Squares (B, N, P) -> (B, C, H, H) as `pixels`, whose rest beyond whole squares is kept."""
    rows = pixels.shape[-1] // side
    parts = numbers.unflatten(1, (rows, rows)).unflatten(-1, (side, side, pixels.shape[1])).permute(0, 5, 1, 3, 2, 4)
    made = pixels.to(numbers.dtype, copy=True)
    made[..., : rows * side, : rows * side] = parts.flatten(4).flatten(2, 3)
    return made


def grid(side: int, width: int) -> Tensor:
    """(1 + side², width) fp32: of a class token zeros, of each place sines and cosines of its column, then its row."""
    quarter = width // 4
    rates = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float32) / max(quarter, 1))
    angles = torch.arange(side, dtype=torch.float32)[:, None] * rates
    each = torch.cat((angles.sin(), angles.cos()), 1)
    both = torch.cat((each[None].expand(side, -1, -1), each[:, None].expand(-1, side, -1)), -1).flatten(0, 1)
    table = torch.zeros(1 + side * side, width)
    table[1:, : 4 * quarter] = both
    return table
