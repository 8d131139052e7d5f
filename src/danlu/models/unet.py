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
from danlu.models.layout import Form, Layout
from danlu.nn.heads import LabelConfig
from danlu.nn.unet import UNetConfig

EMBED = UNetConfig
STOCK = False
DEPTH = 2  # where the recipe leaves it open
_SMALLEST = 3  # places on each side of the last stage, at least
_STAGES = 5  # at most
_LARGE = 192  # pixels on each side from which the first convolution takes every second place


def layout(stock: str, head: LabelConfig) -> Layout:
    """Names of tensors, on the way down as those of other convolutional networks are."""
    down = convolutional.layout(stock, "each")
    back = both({"embed.back.{n}.norm": "embed.back.{n}.norm"})
    back |= {name: name for name in ("embed.back.{n}.conv.weight", "embed.narrow.{n}.weight")}
    return Layout({**down.names, **back}, "", (Form(stock, head, down.forms[0].names),))


LAYOUT = layout("UNet", LabelConfig(1, "each"))


def preset(
    vocab: int, context: int, depth: int, *, image: int = 96, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: convolutions of each stage, down and up; 16 channels in the first, twice as many in each that follows.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    return shaped(depth, image, channels, sizes, LabelConfig(1, "each", dropout=dropout))


def shaped(
    depth: int, image: int, channels: int, sizes: Mapping[str, int], head: LabelConfig, stride: int = 1
) -> Architecture:
    """The form for pictures of `image` pixels on each side, whose places answer for `stride` pixels, or the stem's.

    Raises ValueError for sizes other than width.
    """
    check_sizes(sizes, ("width",))
    stem = 2 if image >= _LARGE else 1
    stages = 1
    while image // stem >> stages >= _SMALLEST and stages < _STAGES:
        stages += 1
    stop = min(stages - 1, max(0, (stride // stem).bit_length() - 1))
    embed = UNetConfig(image, channels, sizes.get("width", 16), stages, depth, stem=stem, stop=stop)
    return architecture(embed, head.dropout, head)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    return written("unet", LAYOUT, architecture, dtype)


def written(model_type: str, made: Layout, shape: Architecture, dtype: str) -> dict[str, Any]:
    """config.json of a form of this kind."""
    embed = shape.embed
    assert isinstance(embed, UNetConfig)
    own = {"stem_stride": embed.stem, "output_stage": embed.stop}
    return convolutional.to_hf(model_type, made, shape, dtype) | own


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    return described(LAYOUT, config)


def described(made: Layout, config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that `written` made."""
    names = ("image_size", "num_channels", "hidden_size", "num_stages", "num_layers")
    image, channels, width, stages, depth = (foreign.positive(config, name) for name in names)
    stem, stop = foreign.positive(config, "stem_stride", 1), int(foreign.number(config, "output_stage", 0))
    dropout = foreign.number(config, "dropout", 0.0)
    head = made.form_named(config).read(config, dropout)
    assert isinstance(head, LabelConfig)
    return architecture(UNetConfig(image, channels, width, stages, depth, stem=stem, stop=stop), dropout, head)
