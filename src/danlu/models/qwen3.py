"""The default GPT, exactly in Qwen3's form (2505.09388): opens in transformers, vLLM and llama.cpp.

RMSNorm before each sub-layer, rotary positions, a norm on each query and key head, SwiGLU, no biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig
from danlu.nn.positions import Rotary

HEAD_DIM = 64
THETA = 1_000_000.0
_LAYER, _BLOCK = "model.layers.{n}", "core.blocks.{n}"
NAMES = {
    "embed.tokens.weight": "model.embed_tokens.weight",
    f"{_BLOCK}.attention.norm.weight": f"{_LAYER}.input_layernorm.weight",
    f"{_BLOCK}.attention.inner.q.weight": f"{_LAYER}.self_attn.q_proj.weight",
    f"{_BLOCK}.attention.inner.k.weight": f"{_LAYER}.self_attn.k_proj.weight",
    f"{_BLOCK}.attention.inner.v.weight": f"{_LAYER}.self_attn.v_proj.weight",
    f"{_BLOCK}.attention.inner.o.weight": f"{_LAYER}.self_attn.o_proj.weight",
    f"{_BLOCK}.attention.inner.q_norm.weight": f"{_LAYER}.self_attn.q_norm.weight",
    f"{_BLOCK}.attention.inner.k_norm.weight": f"{_LAYER}.self_attn.k_norm.weight",
    f"{_BLOCK}.mlp.norm.weight": f"{_LAYER}.post_attention_layernorm.weight",
    f"{_BLOCK}.mlp.inner.gate.weight": f"{_LAYER}.mlp.gate_proj.weight",
    f"{_BLOCK}.mlp.inner.up.weight": f"{_LAYER}.mlp.up_proj.weight",
    f"{_BLOCK}.mlp.inner.down.weight": f"{_LAYER}.mlp.down_proj.weight",
    "core.norm.weight": "model.norm.weight",
    "head.output.weight": "lm_head.weight",
}
# What a model of this form is free to choose in its core.
_SIZES = ("dim", "layers", "heads", "kv_heads", "head_dim", "hidden")
_FREE = (*_SIZES, "norm_eps", "position", "dropout", "attention_dropout")


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial: width 64 per layer, heads of 64, MLP 8/3 of the width (rounded up to 64).

    `sizes` override it: width, heads, kv_heads, head_dim, hidden. Raises ValueError where they do not fit together.
    """
    check_sizes(sizes, ("width", "heads", "kv_heads", "head_dim", "hidden"))
    width, head_dim = sizes.get("width", 64 * depth), sizes.get("head_dim", HEAD_DIM)
    heads = sizes.get("heads", max(width // head_dim, 1))
    core = _core(
        dim=width,
        layers=depth,
        heads=heads,
        kv_heads=sizes.get("kv_heads", heads),
        head_dim=head_dim,
        hidden=sizes.get("hidden", -(-width * 8 // (3 * 64)) * 64),
        position=Rotary(theta=THETA),
        dropout=dropout,
    )
    return _architecture(core, vocab, tied, context)


def carries(architecture: Architecture) -> bool:
    """Whether this form holds that model exactly."""
    core = architecture.core
    if not isinstance(core.position, Rotary):
        return False
    free = {name: getattr(core, name) for name in _FREE}
    embed, head = architecture.embed, architecture.head
    return architecture == _architecture(_core(**free), embed.vocab, head.tied, architecture.context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; `tokens` holds bos_token_id, eos_token_id, pad_token_id; `dtype` is that of the written tensors."""
    core = architecture.core
    assert isinstance(core.position, Rotary)
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": architecture.embed.vocab,
        "hidden_size": core.dim,
        "intermediate_size": core.hidden,
        "num_hidden_layers": core.layers,
        "num_attention_heads": core.heads,
        "num_key_value_heads": core.kv_heads,
        "head_dim": core.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": architecture.context,
        "rms_norm_eps": core.norm_eps,
        **foreign.rotary_to(core.position),
        "attention_bias": False,
        "attention_dropout": core.attention_dropout,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": core.layers,
        "tie_word_embeddings": architecture.head.tied,
        **tokens,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json.

    Raises:
        UserError: E320, it asks for something that danlu does not carry.
    """
    foreign.only(config, hidden_act="silu", attention_bias=False, use_sliding_window=False)
    heads = foreign.positive(config, "num_attention_heads")
    core = _core(
        dim=foreign.positive(config, "hidden_size"),
        layers=foreign.positive(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=foreign.positive(config, "num_key_value_heads", heads),
        head_dim=foreign.positive(config, "head_dim", 128),
        hidden=foreign.positive(config, "intermediate_size"),
        norm_eps=foreign.number(config, "rms_norm_eps", 1e-6),
        position=foreign.rotary_from(config),
        attention_dropout=foreign.number(config, "attention_dropout", 0.0),
    )
    tied = bool(config.get("tie_word_embeddings", False))
    return _architecture(
        core, foreign.positive(config, "vocab_size"), tied, foreign.positive(config, "max_position_embeddings")
    )


def export_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to theirs."""
    return foreign.renamed(state, NAMES)


def import_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Theirs to ours; raises UserError E321 for a tensor that has no place."""
    theirs = foreign.without_copy(theirs, "lm_head.weight", "model.embed_tokens.weight")
    return foreign.renamed(theirs, foreign.inverted(NAMES), ignored=[f"{_LAYER}.self_attn.rotary_emb.inv_freq"])


def _core(**free: Any) -> TransformerConfig:
    """What all models of this form share."""
    return TransformerConfig(mlp="swiglu", norm="rms", placement="pre", bias="none", qk_norm="head", **free)


def _architecture(core: TransformerConfig, vocab: int, tied: bool, context: int) -> Architecture:
    return Architecture(core, TokensConfig(vocab), VocabularyConfig(tied), context)
