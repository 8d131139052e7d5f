"""What the convolutional networks share (cnn, resnet): stages until the picture is small, then a label.

No stock family has them: their folders are danlu's own, under the names of the tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.adversarial import AdversarialConfig
from danlu.nn.config import TransformerConfig
from danlu.nn.convolutions import ConvolutionsConfig
from danlu.nn.denoiser import DenoiserConfig
from danlu.nn.heads import LabelConfig

_SMALLEST = 6  # pixels on each side of the last stage, at least
_STAGES = 5  # at most
_BLOCK = "embed.blocks.{n}"


def layout(stock: str, pool: str) -> Layout:
    """Names of tensors; a plain block has the first of each."""
    convolutions = {f"{_BLOCK}.{name}.weight": f"{_BLOCK}.{name}.weight" for name in ("conv", "second", "around")}
    norms = {f"{_BLOCK}.{name}": f"{_BLOCK}.{name}" for name in ("norm", "last")}
    form = Form(stock, LabelConfig(1, pool), both({"head.output": "head.output"}))
    return Layout(convolutions | both(norms), "", (form,))


def preset(
    depth: int, image: int, channels: int, dropout: float, sizes: Mapping[str, int], width: int, kind: str, pool: str
) -> Architecture:
    """One dial: blocks of each stage. `sizes` override it: width. Raises ValueError for others."""
    check_sizes(sizes, ("width",))
    stages = 1
    while image >> stages >= _SMALLEST and stages < _STAGES:
        stages += 1
    embed = ConvolutionsConfig(image, channels, sizes.get("width", width), stages, depth, kind)
    return architecture(embed, dropout, LabelConfig(1, pool, dropout=dropout))


def to_hf(model_type: str, made: Layout, shape: Architecture, dtype: str) -> dict[str, Any]:
    """What from_hf reads again."""
    form, embed = made.form_of(shape.head), shape.embed
    assert form is not None and isinstance(embed, ConvolutionsConfig)
    return {
        **form.write(shape.head),
        "model_type": model_type,
        "image_size": embed.image,
        "num_channels": embed.channels,
        "hidden_size": embed.width,
        "num_stages": embed.stages,
        "num_layers": embed.depth,
        "dropout": shape.core.dropout,
        "torch_dtype": dtype,
    }


def from_hf(made: Layout, config: Mapping[str, Any], kind: str) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    names = ("image_size", "num_channels", "hidden_size", "num_stages", "num_layers")
    image, channels, width, stages, depth = (foreign.positive(config, name) for name in names)
    embed = ConvolutionsConfig(image, channels, width, stages, depth, kind)
    dropout = foreign.number(config, "dropout", 0.0)
    head = made.form_named(config).read(config, dropout)
    assert isinstance(head, LabelConfig)
    return architecture(embed, dropout, head)


def architecture(
    embed: ConvolutionsConfig | DenoiserConfig | AdversarialConfig, dropout: float, head: LabelConfig
) -> Architecture:
    """Behind the convolutions the stack has no layers."""
    core = TransformerConfig(
        dim=embed.dim, layers=0, heads=0, kv_heads=0, head_dim=0, hidden=0, mlp="relu", norm="layer", placement="post",
        position=None, mask="full", dropout=dropout,
    )  # fmt: skip
    return Architecture(core, embed, head, 1)
