"""Arcee's form: Llama's, with a plain layer of squared ReLU (2109.08668) in place of SwiGLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import decoder, foreign
from danlu.models.architecture import Architecture
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig

THETA = 10_000.0
LAYOUT = decoder.layout("Arcee")


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial, as `qwen3.preset`."""
    core = decoder.plain(THETA, depth, dropout, sizes, norm_eps=1e-5, mlp="relu2")
    return Architecture(core, TokensConfig(vocab), VocabularyConfig(tied), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`."""
    return decoder.to_hf("arcee", LAYOUT, architecture, tokens, dtype) | {
        "hidden_act": "relu2",
        "attention_bias": False,
        "mlp_bias": False,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, hidden_act="relu2", attention_bias=False, mlp_bias=False)
    core = TransformerConfig(
        **decoder.sizes_from({**config, "rms_norm_eps": config.get("rms_norm_eps", 1e-5)}),
        mlp="relu2",
        position=foreign.rotary_from(config),
    )
    return decoder.architecture(config, LAYOUT, core, tied=False)
