"""A light detector without anchors (FCOS, Tian et al. 2019, 1904.01355): U-Net's way back ends at every eighth pixel.

No stock family has it: its folders are danlu's own, under the names of the tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign, unet
from danlu.models.architecture import Architecture
from danlu.nn.heads import LabelConfig
from danlu.nn.unet import UNetConfig

EMBED = UNetConfig
STOCK = False
DEPTH = 2  # where the recipe leaves it open
LAYOUT = unet.layout("FCOS", LabelConfig(5, "each", answer="boxes"))
_STRIDE = 8  # pixels from one place that answers to the next


def preset(
    vocab: int, context: int, depth: int, *, image: int = 96, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: convolutions of each stage, down and up; 16 channels in the first, twice as many in each that follows.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    head = LabelConfig(5, "each", answer="boxes", dropout=dropout)
    return unet.shaped(depth, image, channels, sizes, head, _STRIDE)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    return unet.written("fcos", LAYOUT, architecture, dtype)


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    return unet.described(LAYOUT, config)
