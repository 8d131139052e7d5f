"""Llama's form (2302.13971, 2407.21783): RMSNorm before each sub-layer, rotary positions, SwiGLU, no biases.

Llama 3 stretches its positions (`llama3` scaling) and shares keys and values among heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import decoder, foreign
from danlu.models.architecture import Architecture
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig

THETA = 500_000.0
LAYOUT = decoder.layout("Llama")


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial, as `qwen3.preset`."""
    core = decoder.plain(THETA, depth, dropout, sizes, norm_eps=1e-5)
    return Architecture(core, TokensConfig(vocab), VocabularyConfig(tied), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`."""
    return decoder.to_hf("llama", LAYOUT, architecture, tokens, dtype) | {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, hidden_act="silu", attention_bias=False, mlp_bias=False)
    core = TransformerConfig(**decoder.sizes_from(config), position=foreign.rotary_from(config))
    return decoder.architecture(config, LAYOUT, core, tied=False)
