"""An MLP for rows of tables and for pictures: blocks of two layers, residual, with norms (2106.11959, section 3.2).

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
from danlu.nn.heads import LabelConfig
from danlu.nn.stems import CellsConfig, PatchesConfig

EMBED = (CellsConfig, PatchesConfig)
SUITS = "named"  # tasks that name it
DEPTH = 3  # where the recipe leaves it open
DIALS = ("width", "hidden")
ONE_SIZE = True  # of pictures
SIZES = {"small": {"depth": 2}, "base": {"depth": 3}, "large": {"depth": 6}}  # widths follow
STOCK = False
_BLOCK = "core.blocks.{n}.mlp"
_SAME = ("embed.cells.weight", "embed.bias", "core.norm.weight", "core.norm.bias")
_PARTS = {f"{_BLOCK}.{part}": f"{_BLOCK}.{part}" for part in ("inner.up", "inner.down", "norm")}
LAYOUT = Layout(
    {name: name for name in _SAME} | both(_PARTS) | both({"embed.project": "embed.project"}),
    "",
    (Form("Mlp", LabelConfig(1, "first"), both({"head.output": "head.output"})),),
)


def preset(
    vocab: int, context: int, depth: int, *, image: int = 0, channels: int = 0, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: blocks, each 64 wider, and inside twice as wide; `context` is the number of columns.

    For pictures of `image` pixels on each side, blocks are 256 wider.

    `sizes` override it: width, hidden. Raises ValueError for others.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, DIALS)
    width = sizes.get("width", (256 if image else 64) * depth)
    core = _core(dim=width, layers=depth, hidden=sizes.get("hidden", 2 * width), dropout=dropout)
    embed = _pixels(image, channels) if image else CellsConfig(vocab, context)
    return Architecture(core, embed, LabelConfig(1, "first"), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    form, core, embed = LAYOUT.form_of(architecture.head), architecture.core, architecture.embed
    assert form is not None and isinstance(embed, CellsConfig | PatchesConfig)
    read = {"vocab_size": embed.vocab, "num_columns": embed.fields} if isinstance(embed, CellsConfig) else {}
    read |= {"image_size": embed.image, "num_channels": embed.channels} if isinstance(embed, PatchesConfig) else {}
    return {
        **form.write(architecture.head),
        "model_type": "mlp",
        **read,
        "hidden_size": core.dim,
        "num_hidden_layers": core.layers,
        "intermediate_size": core.hidden,
        "dropout": core.dropout,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    core = _core(
        dim=foreign.positive(config, "hidden_size", 64),
        layers=foreign.positive(config, "num_hidden_layers", 1),
        hidden=foreign.positive(config, "intermediate_size", 128),
        dropout=foreign.number(config, "dropout", 0.0),
    )
    head = LAYOUT.form_named(config).read(config, core.dropout)
    if "image_size" in config:
        sides = (foreign.positive(config, name) for name in ("image_size", "num_channels"))
        return Architecture(core, _pixels(*sides), head, 1)
    fields = foreign.positive(config, "num_columns", 1)
    return Architecture(core, CellsConfig(foreign.positive(config, "vocab_size", 1), fields), head, fields)


def _pixels(image: int, channels: int) -> PatchesConfig:
    """All pixels as one vector."""
    return PatchesConfig(image, image, channels, tokens=0, places="none")


def _core(**free: Any) -> TransformerConfig:
    return TransformerConfig(
        heads=0, kv_heads=0, head_dim=0, mlp="relu", norm="layer", norm_eps=1e-5, bias="all", position=None,
        mask="full", **free,
    )  # fmt: skip
