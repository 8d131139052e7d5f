"""Two convolutional networks against each other, one that makes pictures and one that judges them (1511.06434).

No stock family has them: their folders are danlu's own, under the names of the tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.convolutional import architecture
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.adversarial import AdversarialConfig
from danlu.nn.heads import LabelConfig

EMBED = AdversarialConfig
STOCK = False
DEPTH = 1  # where the recipe leaves it open
_WIDTH = 32
_SIZES = {"image": "image_size", "channels": "num_channels", "width": "hidden_size", "depth": "num_layers",
          "latent": "latent_size"}  # fmt: skip
_HEAD = LabelConfig(0, "each")


def _layout() -> Layout:
    """Its tensors go by the names that they have here."""
    plain = [f"{part}.{name}" for part in ("generator", "discriminator") for name in ("blocks.{n}.conv", "out")]
    plain += ["generator.first"]
    biased = ["generator.norm", "generator.blocks.{n}.norm", "discriminator.blocks.{n}.norm"]
    names = {f"{name}.weight": f"{name}.weight" for name in plain} | both({name: name for name in biased})
    return Layout(names, "", (Form("Dcgan", _HEAD),))


LAYOUT = _layout()


def preset(
    vocab: int, context: int, depth: int, *, image: int = 32, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: convolutions at each size of the picture; 32 channels at its own, twice as many at each smaller one.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, ("width",))
    return architecture(AdversarialConfig(image, channels, sizes.get("width", _WIDTH), depth), dropout, _HEAD)


def to_hf(shape: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    said = {theirs: getattr(shape.embed, ours) for ours, theirs in _SIZES.items()}
    form = LAYOUT.forms[0].write(shape.head)
    return {**form, "model_type": "dcgan", **said, "dropout": shape.core.dropout, "torch_dtype": dtype}


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    embed = AdversarialConfig(**{ours: foreign.positive(config, theirs) for ours, theirs in _SIZES.items()})
    return architecture(embed, foreign.number(config, "dropout", 0.0), _HEAD)
