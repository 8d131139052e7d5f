"""U-Net for the pixels of pictures (Ronneberger et al. 2015, 1505.04597), with norms over groups of channels.

No stock family has it: its folders are danlu's own, under the names of the tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import convolutional, foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.convolutional import architecture
from danlu.models.encoder import both
from danlu.models.layout import Layout
from danlu.nn.heads import LabelConfig
from danlu.nn.unet import UNetConfig

EMBED = UNetConfig
STOCK = False
DEPTH = 2  # where the recipe leaves it open
_SMALLEST = 3  # places on each side of the last stage, at least
_STAGES = 5  # at most
_LARGE = 192  # pixels on each side from which the first convolution takes every second place
_DOWN = convolutional.layout("UNet", "each")
_BACK = both({"embed.back.{n}.norm": "embed.back.{n}.norm"})
_BACK |= {name: name for name in ("embed.back.{n}.conv.weight", "embed.narrow.{n}.weight")}
LAYOUT = Layout({**_DOWN.names, **_BACK}, "", _DOWN.forms)


def preset(
    vocab: int, context: int, depth: int, *, image: int = 96, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: convolutions of each stage, down and up; 16 channels in the first, twice as many in each that follows.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, ("width",))
    stem = 2 if image >= _LARGE else 1
    stages = 1
    while image // stem >> stages >= _SMALLEST and stages < _STAGES:
        stages += 1
    embed = UNetConfig(image, channels, sizes.get("width", 16), stages, depth, stem=stem)
    return architecture(embed, dropout, LabelConfig(1, "each", dropout=dropout))


def to_hf(shape: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    assert isinstance(shape.embed, UNetConfig)
    return convolutional.to_hf("unet", LAYOUT, shape, dtype) | {"stem_stride": shape.embed.stem}


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    names = ("image_size", "num_channels", "hidden_size", "num_stages", "num_layers")
    image, channels, width, stages, depth = (foreign.positive(config, name) for name in names)
    stem = foreign.positive(config, "stem_stride", 1)
    dropout = foreign.number(config, "dropout", 0.0)
    head = LAYOUT.form_named(config).read(config, dropout)
    assert isinstance(head, LabelConfig)
    return architecture(UNetConfig(image, channels, width, stages, depth, stem=stem), dropout, head)
