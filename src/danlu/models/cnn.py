"""A convolutional network for pictures: stages of 3 x 3 convolutions, the mean over places, a label (LeCun 1998).

No stock family has it: its folder is danlu's own, under the names of its tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.config import TransformerConfig
from danlu.nn.convolutions import ConvolutionsConfig
from danlu.nn.heads import LabelConfig

EMBED = ConvolutionsConfig
STOCK = False
DEPTH = 1  # where the recipe leaves it open
_SMALLEST = 6  # pixels on each side of the last stage, at least
_BLOCK = "embed.blocks.{n}"
LAYOUT = Layout(
    {f"{_BLOCK}.conv.weight": f"{_BLOCK}.conv.weight"} | both({f"{_BLOCK}.norm": f"{_BLOCK}.norm"}),
    "",
    (Form("Cnn", LabelConfig(1, "mean"), both({"head.output": "head.output"})),),
)


def preset(
    vocab: int, context: int, depth: int, *, image: int = 32, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: convolutions of each stage; 32 channels in the first. Stages until the picture is small.

    `sizes` override it: width. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, ("width",))
    stages = 1
    while image >> stages >= _SMALLEST and stages < 5:
        stages += 1
    return _architecture(ConvolutionsConfig(image, channels, sizes.get("width", 32), stages, depth), dropout)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    form, embed = LAYOUT.form_of(architecture.head), architecture.embed
    assert form is not None and isinstance(embed, ConvolutionsConfig)
    return {
        **form.write(architecture.head),
        "model_type": "cnn",
        "image_size": embed.image,
        "num_channels": embed.channels,
        "hidden_size": embed.width,
        "num_stages": embed.stages,
        "num_layers": embed.depth,
        "dropout": architecture.core.dropout,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    names = ("image_size", "num_channels", "hidden_size", "num_stages", "num_layers")
    embed = ConvolutionsConfig(*(foreign.positive(config, name) for name in names))
    made = _architecture(embed, foreign.number(config, "dropout", 0.0))
    return Architecture(made.core, embed, LAYOUT.form_named(config).read(config, made.core.dropout), 1)


def _architecture(embed: ConvolutionsConfig, dropout: float) -> Architecture:
    """Behind the convolutions the stack has no layers."""
    core = TransformerConfig(
        dim=embed.dim, layers=0, heads=0, kv_heads=0, head_dim=0, hidden=0, mlp="relu", norm="layer", placement="post",
        position=None, mask="full", dropout=dropout,
    )  # fmt: skip
    return Architecture(core, embed, LabelConfig(1, "mean", dropout=dropout), 1)
