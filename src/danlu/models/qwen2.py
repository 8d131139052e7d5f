"""Qwen2's form (2407.10671): Llama's, with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import decoder, foreign
from danlu.models.architecture import Architecture
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig

THETA = 1_000_000.0
LAYOUT = decoder.layout("Qwen2")


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial, as `qwen3.preset`, the heads' size being width / heads."""
    width = sizes.get("width", 64 * depth)
    heads = sizes.get("heads", max(width // decoder.HEAD_DIM, 1))
    if width != heads * sizes.get("head_dim", width // heads):
        raise ValueError(f"width ({width}) must be heads ({heads}) times head_dim")
    core = decoder.plain(THETA, depth, dropout, {**sizes, "head_dim": width // heads}, bias="qkv")
    return Architecture(core, TokensConfig(vocab), VocabularyConfig(tied), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`. The family has no key for the size of a head."""
    said = decoder.to_hf("qwen2", LAYOUT, architecture, tokens, dtype)
    del said["head_dim"]
    return said | {
        "hidden_act": "silu",
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": architecture.core.layers,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, hidden_act="silu", use_sliding_window=False, head_dim=None)
    decoder.whole(config)
    core = TransformerConfig(**decoder.sizes_from(config), bias="qkv", position=foreign.rotary_from(config))
    return decoder.architecture(config, LAYOUT, core, tied=False)
