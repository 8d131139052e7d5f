"""A U-Net that finds the noise in pictures, from which new ones are made (DDPM, 2006.11239).

No stock family has it: its folders are danlu's own, under the names of the tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.convolutional import architecture
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.denoiser import DenoiserConfig
from danlu.nn.heads import LabelConfig

EMBED = DenoiserConfig
STOCK = False
DEPTH = 1  # where the recipe leaves it open
_WIDTH = 48
_PATCHED = 24  # pixels on each side from which four are one to the first stage
_SMALLEST, _STAGES = 3, 3  # pixels on each side of the last stage, at least, and stages, at most
_SIZES = {"image": "image_size", "channels": "num_channels", "width": "hidden_size", "stages": "num_stages",
          "depth": "num_layers", "patch": "patch_size"}  # fmt: skip
_HEAD = LabelConfig(0, "each")


def _layout() -> Layout:
    """Its tensors go by the names that they have here."""
    block = "embed.blocks.{n}"
    plain = [f"{block}.{name}" for name in ("conv", "second", "around")]
    plain += ["embed.stem", "embed.out", "embed.lower.{n}", "embed.lift.{n}"]
    biased = [f"{block}.{name}" for name in ("norm", "last", "level")]
    biased += ["embed.norm", "embed.level.first", "embed.level.second"]
    names = {f"{name}.weight": f"{name}.weight" for name in plain} | both({name: name for name in biased})
    return Layout(names, "", (Form("Denoiser", _HEAD),))


LAYOUT = _layout()


def preset(
    vocab: int, context: int, depth: int, *, image: int = 32, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: blocks of each stage, each of two convolutions; 48 channels in the first stage, then twice as many.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, ("width",))
    patch = 2 if image >= _PATCHED and image % 2 == 0 else 1
    side, stages = image // patch, 1
    while stages < _STAGES and side % 2 == 0 and side // 2 >= _SMALLEST:
        side, stages = side // 2, stages + 1
    embed = DenoiserConfig(image, channels, sizes.get("width", _WIDTH), stages, depth, patch)
    return architecture(embed, dropout, _HEAD)


def to_hf(shape: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    said = {theirs: getattr(shape.embed, ours) for ours, theirs in _SIZES.items()}
    form = LAYOUT.forms[0].write(shape.head)
    return {**form, "model_type": "ddpm", **said, "dropout": shape.core.dropout, "torch_dtype": dtype}


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    embed = DenoiserConfig(**{ours: foreign.positive(config, theirs) for ours, theirs in _SIZES.items()})
    return architecture(embed, foreign.number(config, "dropout", 0.0), _HEAD)
