"""Gemma 3's form for text (2503.19786): RMSNorm before and after each sub-layer, five windowed layers to a whole one.

Weights of norms are stored minus one, token vectors are scaled by sqrt(width), and windowed layers turn positions by a
base of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from danlu.models import decoder, foreign
from danlu.models.architecture import Architecture
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig
from danlu.nn.positions import Rotary

THETA, LOCAL_THETA = 1_000_000.0, 10_000.0
ALIAS = "gemma3"
PATTERN = 6  # every sixth layer sees all
WINDOW = 4096
_NAMES = {
    **{ours: theirs for ours, theirs in decoder.NAMES.items() if not ours.endswith(".bias")},
    f"{decoder.BLOCK}.attention.after.weight": f"{decoder.LAYER}.post_attention_layernorm.weight",
    f"{decoder.BLOCK}.mlp.norm.weight": f"{decoder.LAYER}.pre_feedforward_layernorm.weight",
    f"{decoder.BLOCK}.mlp.after.weight": f"{decoder.LAYER}.post_feedforward_layernorm.weight",
}
LAYOUT = decoder.layout("Gemma3", _NAMES, others="Gemma3Text")
LAYOUT = replace(LAYOUT, forms=tuple(form for form in LAYOUT.forms if "Token" not in form.stock))
_FORM: dict[str, Any] = {"norm": "rms1", "placement": "sandwich", "mlp": "geglu_tanh", "qk_norm": "head"}


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial, as `qwen3.preset`; the window is a quarter of the context, 4096 at most."""
    window = min(max(context // 4, 1), WINDOW)
    core = decoder.plain(THETA, depth, dropout, sizes, window=(window,) * (PATTERN - 1) + (0,), **_FORM)
    core = replace(core, position=Rotary(THETA, LOCAL_THETA), scale=core.head_dim**-0.5)
    return Architecture(core, _embed(vocab, core.dim), VocabularyConfig(tied), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`."""
    core = architecture.core
    local = core.position.local_theta if isinstance(core.position, Rotary) else LOCAL_THETA
    return decoder.to_hf("gemma3_text", LAYOUT, architecture, tokens, dtype) | {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": round(core.score_scale**-2),
        "sliding_window": max(core.windows) or WINDOW,
        "layer_types": ["sliding_attention" if window else "full_attention" for window in core.windows],
        "rope_local_base_freq": local,
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, hidden_activation="gelu_pytorch_tanh", attention_bias=False)
    foreign.only(config, final_logit_softcapping=None, attn_logit_softcapping=None)
    if config.get("use_bidirectional_attention"):
        raise foreign.refusal("use_bidirectional_attention", config["use_bidirectional_attention"])
    core = TransformerConfig(
        **decoder.sizes_from({**config, "num_key_value_heads": config.get("num_key_value_heads", 4)}, head_dim=256),
        **_FORM,
        position=_rotary(config),
        window=_windows(config),
        scale=foreign.positive(config, "query_pre_attn_scalar", 256) ** -0.5,
    )
    opened = decoder.architecture(config, LAYOUT, core, tied=True)
    return replace(opened, embed=_embed(opened.tokens.vocab, core.dim))


def _embed(vocab: int, dim: int) -> TokensConfig:
    return TokensConfig(vocab, scale=dim**0.5)


def _rotary(config: Mapping[str, Any]) -> Rotary:
    """Whole layers by their own keys, which may be stretched; windowed ones by a base alone."""
    given = config.get("rope_parameters") or {}
    local = given.get("sliding_attention") or {}
    foreign.only(local, rope_type="default")
    base = foreign.number(config, "rope_local_base_freq", LOCAL_THETA)
    spelled = {"rope_theta": THETA} | {key: value for key, value in config.items() if key != "rope_parameters"}
    if "full_attention" in given:
        spelled["rope_parameters"] = {"rope_theta": THETA} | given["full_attention"]
    return replace(foreign.rotary_from(spelled), local_theta=foreign.number(local, "rope_theta", base))


def _windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The window of every layer."""
    window, layers = foreign.positive(config, "sliding_window", WINDOW), foreign.positive(config, "num_hidden_layers")
    pattern = foreign.positive(config, "sliding_window_pattern", PATTERN)
    regular = ["sliding_attention" if (layer + 1) % pattern else "full_attention" for layer in range(layers)]
    kinds = config.get("layer_types") or regular
    if len(kinds) != layers or set(kinds) - {"sliding_attention", "full_attention"}:
        raise foreign.refusal("layer_types", kinds)
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
