"""A residual network for pictures (He et al. 2016, 1512.03385), with norms over groups of channels of each picture.

The norm of a batch, which the paper has, would let the pictures of a batch see each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import convolutional, foreign
from danlu.models.architecture import Architecture
from danlu.nn.convolutions import ConvolutionsConfig

EMBED = ConvolutionsConfig
STOCK = False
DEPTH = 3  # where the recipe leaves it open
LAYOUT = convolutional.layout("GroupResNet", "mean")


def preset(
    vocab: int, context: int, depth: int, *, image: int = 32, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: blocks of each stage, each of two convolutions; 16 channels in the first, then twice as many.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    return convolutional.preset(depth, image, channels, dropout, sizes, 16, "residual", "mean")


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    return convolutional.to_hf("resnet", LAYOUT, architecture, dtype)


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    return convolutional.from_hf(LAYOUT, config, "residual")
