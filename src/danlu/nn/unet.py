"""U-Net (Ronneberger et al. 2015, 1505.04597): stages down, and back up beside what each stage had seen.

Shapes: B pictures · C channels · H pixels on each side · S places on each side that come out · W their channels
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.convolutions import Convolution, Convolutions, ConvolutionsConfig, Layer, Pointwise


@dataclass(frozen=True)
class UNetConfig(ConvolutionsConfig):
    """Convolutions, and for each stage from the last but one to `stop` as many blocks on the way back."""

    stop: int = 0  # the stage to which the way back leads

    @property
    def dim(self) -> int:
        """Channels of the stage to which the way back leads."""
        return self.width * 2**self.stop

    @property
    def finest(self) -> int:
        """Places on each side that come out."""
        return self.side >> self.stop

    @property
    def ways(self) -> list[tuple[int, int, int]]:
        """(channels of the stage below, own channels, places on each side), from the coarsest stage upward."""
        return [
            (self.width * 2 ** (stage + 1), self.width * 2**stage, self.side >> stage)
            for stage in reversed(range(self.stop, self.stages - 1))
        ]

    @property
    def back(self) -> list[Layer]:
        """The blocks on the way back; the first of each stage reads what the stage had seen, too."""
        return [
            Layer(own if place else 2 * own, own, side, False)
            for _, own, side in self.ways
            for place in range(self.depth)
        ]

    @property
    def products(self) -> Iterator[tuple[int, int, int]]:
        yield from super().products
        for below, own, side in self.ways:
            yield below, own, side // 2
        for layer in self.back:
            yield 9 * layer.inputs, layer.outputs, layer.side


class UNet(Convolutions):
    """In place of an embedding: the places of a stage, each having seen all of the picture.

    On the way back channels are halved before places are doubled, by repetition: a quarter of the products, and a
    backward pass that is the same each time on a GPU, too.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.depth, self.stop = config.depth, config.stop
        self.narrow = nn.ModuleList(Pointwise(below, own) for below, own, _ in config.ways)
        self.back = nn.ModuleList(Convolution(layer) for layer in config.back)

    def forward(self, pixels: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """pixels (B, C, H, H) -> (B, S * S, W), row by row. Raises ValueError for a picture of another size."""
        self.check(pixels)
        *seen, x = self.stages(pixels)
        for number, (narrow, beside) in enumerate(zip(self.narrow, reversed(seen[self.stop :]), strict=True)):
            x = F.interpolate(narrow(x), size=beside.shape[-2:], mode="nearest")
            x = torch.cat((x, beside), 1)
            for block in self.back[number * self.depth : (number + 1) * self.depth]:
                x = block(x)
        return x.flatten(2).transpose(1, 2)
