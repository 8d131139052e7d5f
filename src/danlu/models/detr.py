"""A detector that says a set of boxes (DETR, Carion et al. 2020, 2005.12872): convolutions, an encoder, a decoder.

No stock family has it: its folders are danlu's own, under the names of the tensors here. Norms stand before each part,
as in GPT-2: so it learns without a warm-up from weights that nobody trained before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from danlu.models import convolutional, foreign, translator
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.config import TransformerConfig
from danlu.nn.convolutions import ConvolutionsConfig
from danlu.nn.queries import QueriesConfig

EMBED = ConvolutionsConfig
STOCK = False
SUITS = "named"  # tasks that name it
DEPTH = 2  # where the recipe leaves it open
DIALS = ("width", "heads", "hidden", "queries")
QUERIES = 64  # boxes that it can say of a picture
HEAD_DIM = 32
_STAGES = 4  # at most: a place of the last stands for 8 pixels, or 16 of a large picture


def _same(modules: Iterable[str]) -> dict[str, str]:
    return {name: name for name in modules}


_STACKS = {side: [*translator.stack(side, ""), *both(_same([f"{side}core.norm"]))] for side in ("", "head.")}
_ANSWERS = [f"head.{name}" for name in ("first", "second", "sides", "kinds")]
_HEAD = _same(["head.queries.weight", *_STACKS["head."], *both(_same(_ANSWERS))])
_ANY = QueriesConfig(TransformerConfig(4, 1, 1, 1, 4, 4, memory=4), 1, 1)
_SEEN = [*(f"{name}.weight" for name in convolutional.CONVOLUTIONS), *both(_same(convolutional.NORMS))]
LAYOUT = Layout(_same([*_SEEN, *_STACKS[""]]), "", (Form("DETR", _ANY, _HEAD),))


def preset(
    vocab: int, context: int, depth: int, *, image: int = 96, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: blocks of each stage, and layers of encoder and decoder, which are as wide as the last stage.

    `sizes` override it: width (of the first stage, 16; each that follows has twice as many channels), heads, hidden,
    queries. Raises ValueError where they do not fit together.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, DIALS)
    stem, stages = convolutional.entered(image, _STAGES)
    embed = ConvolutionsConfig(image, channels, sizes.get("width", 16), stages, depth, "residual", stem)
    heads, hidden = sizes.get("heads", max(1, embed.dim // HEAD_DIM)), sizes.get("hidden", 4 * embed.dim)
    return _architecture(embed, depth, heads, hidden, sizes.get("queries", QUERIES), 1, dropout)


def _architecture(
    embed: ConvolutionsConfig, layers: int, heads: int, hidden: int, queries: int, count: int, dropout: float
) -> Architecture:
    if embed.dim % heads:
        raise ValueError(f"channels of the last stage ({embed.dim}) must be a multiple of heads ({heads})")
    core = TransformerConfig(
        dim=embed.dim, layers=layers, heads=heads, kv_heads=heads, head_dim=embed.dim // heads, hidden=hidden,
        mlp="relu", norm="layer", norm_eps=1e-5, bias="all", position=None, mask="full", dropout=dropout,
    )  # fmt: skip
    return Architecture(core, embed, QueriesConfig(replace(core, memory=core.dim), queries, count), 1)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    core, embed, head = architecture.core, architecture.embed, architecture.head
    assert isinstance(embed, ConvolutionsConfig) and isinstance(head, QueriesConfig)
    return {
        **LAYOUT.forms[0].write(head),
        "model_type": "detr",
        **convolutional.written(embed),
        "stack_layers": core.layers,
        "num_attention_heads": core.heads,
        "intermediate_size": core.hidden,
        "num_queries": head.queries,
        "num_classes": head.count,
        "dropout": core.dropout,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    LAYOUT.form_named(config)
    embed = ConvolutionsConfig(**convolutional.read(config, EMBED), kind="residual")
    asked = ("stack_layers", "num_attention_heads", "intermediate_size", "num_queries", "num_classes")
    layers, heads, hidden, queries, count = (foreign.positive(config, name) for name in asked)
    if embed.dim % heads:
        raise foreign.refusal("num_attention_heads", heads)
    return _architecture(embed, layers, heads, hidden, queries, count, foreign.number(config, "dropout", 0.0))
