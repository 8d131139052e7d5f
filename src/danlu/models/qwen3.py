"""The default GPT, exactly in Qwen3's form (2505.09388): opens in transformers, vLLM and llama.cpp.

RMSNorm before each sub-layer, rotary positions, a norm on each query and key head, SwiGLU, no biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import decoder, foreign
from danlu.models.architecture import Architecture
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig

ALIAS = "gpt"
SUITS = "texts"  # tasks of texts that name no other form
DIALS = ("width", "heads", "kv_heads", "hidden")
THETA = 1_000_000.0
LAYOUT = decoder.layout("Qwen3")


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial: width 64 per layer, heads of 64, MLP 8/3 of the width (rounded up to 64).

    `sizes` override it: width, heads, kv_heads, head_dim, hidden. Raises ValueError where they do not fit together.
    """
    core = decoder.plain(THETA, depth, dropout, sizes, qk_norm="head")
    return Architecture(core, TokensConfig(vocab), VocabularyConfig(tied), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; `tokens` holds bos_token_id, eos_token_id, pad_token_id; `dtype` is that of the written tensors."""
    return decoder.to_hf("qwen3", LAYOUT, architecture, tokens, dtype) | {
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": architecture.core.layers,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json.

    Raises:
        UserError: E320, it asks for something that danlu does not carry.
    """
    foreign.only(config, hidden_act="silu", attention_bias=False, use_sliding_window=False)
    decoder.whole(config)
    core = TransformerConfig(
        **decoder.sizes_from(config, head_dim=128), qk_norm="head", position=foreign.rotary_from(config)
    )
    return decoder.architecture(config, LAYOUT, core, tied=False)
