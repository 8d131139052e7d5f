"""Mistral's form (2310.06825): Llama's, each layer looking back over a window of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import decoder, foreign
from danlu.models.architecture import Architecture
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig

THETA = 10_000.0
WINDOW = 4096
LAYOUT = decoder.layout("Mistral")


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial, as `qwen3.preset`; the window is half the context, 4096 at most."""
    core = decoder.plain(THETA, depth, dropout, sizes, norm_eps=1e-5, window=(min(max(context // 2, 1), WINDOW),))
    return Architecture(core, TokensConfig(vocab), VocabularyConfig(tied), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`."""
    return decoder.to_hf("mistral", LAYOUT, architecture, tokens, dtype) | {
        "hidden_act": "silu",
        "sliding_window": architecture.core.window[0] or None,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, hidden_act="silu", attention_bias=False, layer_types=None)
    whole = "sliding_window" in config and config["sliding_window"] is None
    core = TransformerConfig(
        **decoder.sizes_from({**config, "num_key_value_heads": config.get("num_key_value_heads", 8)}),
        position=foreign.rotary_from(config),
        window=(0 if whole else foreign.positive(config, "sliding_window", WINDOW),),
    )
    return decoder.architecture(config, LAYOUT, core, tied=False)
