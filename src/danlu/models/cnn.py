"""A convolutional network for pictures: stages of convolutions, what is strongest anywhere, a label (LeCun 1998)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import convolutional, foreign
from danlu.models.architecture import Architecture
from danlu.nn.convolutions import ConvolutionsConfig

EMBED = ConvolutionsConfig
STOCK = False
DEPTH = 2  # where the recipe leaves it open
LAYOUT = convolutional.layout("Cnn", "max")


def preset(
    vocab: int, context: int, depth: int, *, image: int = 32, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: convolutions of each stage; 32 channels in the first, twice as many in each that follows.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    return convolutional.preset(depth, image, channels, dropout, sizes, 32, "plain", "max")


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    return convolutional.to_hf("cnn", LAYOUT, architecture, dtype)


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    return convolutional.from_hf(LAYOUT, config, "plain")
