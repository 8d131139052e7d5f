"""What the decoders with rotary positions share (llama, mistral, qwen2, qwen3, gemma3): names and config keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.layout import Form, Layout
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import LabelConfig, VocabularyConfig
from danlu.nn.positions import Rotary

HEAD_DIM = 64
LAYER, BLOCK = "model.layers.{n}", "core.blocks.{n}"
_BIASES = {f"{BLOCK}.attention.inner.{part}.bias": f"{LAYER}.self_attn.{part}_proj.bias" for part in "qkv"}
NAMES = {
    "embed.tokens.weight": "model.embed_tokens.weight",
    f"{BLOCK}.attention.norm.weight": f"{LAYER}.input_layernorm.weight",
    **{f"{BLOCK}.attention.inner.{part}.weight": f"{LAYER}.self_attn.{part}_proj.weight" for part in "qkvo"},
    f"{BLOCK}.attention.inner.q_norm.weight": f"{LAYER}.self_attn.q_norm.weight",
    f"{BLOCK}.attention.inner.k_norm.weight": f"{LAYER}.self_attn.k_norm.weight",
    **_BIASES,
    f"{BLOCK}.mlp.norm.weight": f"{LAYER}.post_attention_layernorm.weight",
    f"{BLOCK}.mlp.inner.gate.weight": f"{LAYER}.mlp.gate_proj.weight",
    f"{BLOCK}.mlp.inner.up.weight": f"{LAYER}.mlp.up_proj.weight",
    f"{BLOCK}.mlp.inner.down.weight": f"{LAYER}.mlp.down_proj.weight",
    "core.norm.weight": "model.norm.weight",
}


def layout(stock: str, names: Mapping[str, str] = NAMES, others: str = "") -> Layout:
    """The classes of a family: "Llama" has LlamaForCausalLM; the names of the rest may begin with `others`."""
    others = others or stock
    output = {"head.output.weight": "lm_head.weight"}
    score = {"head.output.weight": "score.weight", "head.output.bias": "score.bias"}
    forms = (
        Form(f"{stock}ForCausalLM", VocabularyConfig(), output),
        Form(f"{others}ForSequenceClassification", LabelConfig(1, "last", bias="none"), score),
        Form(f"{others}ForTokenClassification", LabelConfig(1, "each"), score),
        Form(f"{others}Model", LabelConfig(0, "each")),
    )
    ignored = (f"{LAYER}.self_attn.rotary_emb.inv_freq",)
    return Layout(names, "model.", forms, ignored, {"lm_head.weight": "model.embed_tokens.weight"})


def sized(depth: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """One dial: width 64 per layer, heads of 64, MLP 8/3 of the width (rounded up to 64); `sizes` override it."""
    check_sizes(sizes, ("width", "heads", "kv_heads", "head_dim", "hidden"))
    width, head_dim = sizes.get("width", 64 * depth), sizes.get("head_dim", HEAD_DIM)
    heads = sizes.get("heads", max(width // head_dim, 1))
    return {
        "dim": width,
        "layers": depth,
        "heads": heads,
        "kv_heads": sizes.get("kv_heads", heads),
        "head_dim": head_dim,
        "hidden": sizes.get("hidden", -(-width * 8 // (3 * 64)) * 64),
    }


def to_hf(
    model_type: str, layout: Layout, architecture: Architecture, tokens: Mapping[str, Any], dtype: str
) -> dict[str, Any]:
    """The keys that all of them have."""
    core, head = architecture.core, architecture.head
    form = layout.form_of(head)
    assert form is not None
    return {
        **form.write(head),
        "model_type": model_type,
        "vocab_size": architecture.tokens.vocab,
        "hidden_size": core.dim,
        "intermediate_size": core.hidden,
        "num_hidden_layers": core.layers,
        "num_attention_heads": core.heads,
        "num_key_value_heads": core.kv_heads,
        "head_dim": core.head_dim,
        "max_position_embeddings": architecture.context,
        "rms_norm_eps": core.norm_eps,
        **foreign.rotary_to(core.position),
        "attention_dropout": core.attention_dropout,
        "tie_word_embeddings": getattr(head, "tied", False),
        **tokens,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def sizes_from(config: Mapping[str, Any], head_dim: int | None = None) -> dict[str, Any]:
    """The sizes of the core, with `head_dim` where the file gives none (None: dim / heads)."""
    dim, heads = foreign.positive(config, "hidden_size"), foreign.positive(config, "num_attention_heads")
    if head_dim is None and config.get("head_dim") is None and dim % heads:
        raise foreign.refusal("num_attention_heads", heads)
    kv_heads = foreign.positive(config, "num_key_value_heads", heads)
    size = foreign.positive(config, "head_dim", head_dim or max(dim // heads, 1))
    if heads % kv_heads or size % 2:
        raise foreign.refusal(
            "num_key_value_heads" if heads % kv_heads else "head_dim", kv_heads if heads % kv_heads else size
        )
    return {
        "dim": dim,
        "layers": foreign.positive(config, "num_hidden_layers"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": size,
        "hidden": foreign.positive(config, "intermediate_size"),
        "norm_eps": foreign.number(config, "rms_norm_eps", 1e-6),
        "attention_dropout": foreign.number(config, "attention_dropout", 0.0),
    }


def architecture(config: Mapping[str, Any], layout: Layout, core: TransformerConfig, tied: bool) -> Architecture:
    """The whole of a config.json whose core is known; `tied` where the file does not say."""
    head = layout.form_named(config).read(config, tied=bool(config.get("tie_word_embeddings", tied)))
    embed = TokensConfig(foreign.positive(config, "vocab_size"))
    return Architecture(core, embed, head, foreign.positive(config, "max_position_embeddings"))


def whole(config: Mapping[str, Any]) -> None:
    """Refuse (E320) layers that look back over a window."""
    for kind in config.get("layer_types") or []:
        if kind != "full_attention":
            raise foreign.refusal("layer_types", kind)


def plain(theta: float, depth: int, dropout: float, sizes: Mapping[str, int], **own: Any) -> TransformerConfig:
    """A preset's core."""
    return TransformerConfig(**sized(depth, sizes), position=Rotary(theta=theta), dropout=dropout, **own)
