"""GPT-2's form (Radford et al. 2019): LayerNorm before each sub-layer, a learned table of positions, biases, GELU.

Its files store every linear as (inputs, outputs), and q, k, v as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.layout import Form, Layout, Weights
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import LabelConfig, VocabularyConfig

SUITS = "texts"  # tasks of texts that name no other form
DIALS = ("width", "heads", "hidden")
HEAD_DIM = 64
_LAYER, _BLOCK = "transformer.h.{n}", "core.blocks.{n}"
_MODULES = {
    f"{_BLOCK}.attention.norm": f"{_LAYER}.ln_1",
    f"{_BLOCK}.attention.inner.qkv": f"{_LAYER}.attn.c_attn",
    f"{_BLOCK}.attention.inner.o": f"{_LAYER}.attn.c_proj",
    f"{_BLOCK}.mlp.norm": f"{_LAYER}.ln_2",
    f"{_BLOCK}.mlp.inner.up": f"{_LAYER}.mlp.c_fc",
    f"{_BLOCK}.mlp.inner.down": f"{_LAYER}.mlp.c_proj",
    "core.norm": "transformer.ln_f",
}
_NAMES = {
    "embed.tokens.weight": "transformer.wte.weight",
    "embed.positions.weight": "transformer.wpe.weight",
    **{f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs in _MODULES.items() for leaf in ("weight", "bias")},
}
_BUFFERS = (f"{_LAYER}.attn.bias", f"{_LAYER}.attn.masked_bias")  # causal masks in old files


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial: width 64 per layer, heads of 64, MLP four times the width.

    `sizes` override it: width, heads, hidden. Raises ValueError where they do not fit together.
    """
    check_sizes(sizes, ("width", "heads", "hidden"))
    width = sizes.get("width", 64 * depth)
    heads = sizes.get("heads", max(width // HEAD_DIM, 1))
    core = _core(
        dim=width,
        layers=depth,
        heads=heads,
        hidden=sizes.get("hidden", 4 * width),
        norm_eps=1e-5,
        dropout=dropout,
    )
    return Architecture(core, TokensConfig(vocab, positions=context), VocabularyConfig(tied), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; `tokens` holds bos_token_id, eos_token_id, pad_token_id; `dtype` is that of the written tensors."""
    core, form = architecture.core, LAYOUT.form_of(architecture.head)
    assert form is not None
    return {
        **form.write(architecture.head),
        "model_type": "gpt2",
        "vocab_size": architecture.tokens.vocab,
        "n_positions": architecture.context,
        "n_ctx": architecture.context,  # llama.cpp reads this one
        "n_embd": core.dim,
        "n_layer": core.layers,
        "n_head": core.heads,
        "n_inner": core.hidden,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": core.norm_eps,
        "embd_pdrop": core.dropout,
        "resid_pdrop": core.dropout,
        "attn_pdrop": core.attention_dropout,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "tie_word_embeddings": getattr(architecture.head, "tied", True),
        **tokens,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json.

    Raises:
        UserError: E320, it asks for something that danlu does not carry.
    """
    foreign.only(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    activation = config.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise foreign.refusal("activation_function", activation)
    dropout = foreign.number(config, "resid_pdrop", 0.1)
    foreign.only(config, embd_pdrop=dropout)
    width, heads = foreign.positive(config, "n_embd"), foreign.positive(config, "n_head")
    if width % heads:
        raise foreign.refusal("n_head", heads)
    core = _core(
        dim=width,
        layers=foreign.positive(config, "n_layer"),
        heads=heads,
        hidden=foreign.positive(config, "n_inner", 4 * width),
        norm_eps=foreign.number(config, "layer_norm_epsilon", 1e-5),
        dropout=dropout,
        attention_dropout=foreign.number(config, "attn_pdrop", 0.1),
    )
    head = LAYOUT.form_named(config).read(config, tied=bool(config.get("tie_word_embeddings", True)))
    context = foreign.positive(config, "n_positions", 1024)
    return Architecture(core, TokensConfig(foreign.positive(config, "vocab_size"), positions=context), head, context)


def _fused(state: Weights) -> Weights:
    """q, k, v as one, linears turned."""
    fused: Weights = {}
    for name, tensor in state.items():
        if ".inner.q." in name:
            parts = [state[name.replace(".inner.q.", f".inner.{part}.")] for part in "qkv"]
            fused[name.replace(".inner.q.", ".inner.qkv.")] = torch.cat(parts)
        elif ".inner.k." not in name and ".inner.v." not in name:
            fused[name] = tensor
    return {name: _turned(name, tensor) for name, tensor in fused.items()}


def _parted(fused: Weights) -> Weights:
    """The way back."""
    ours: Weights = {}
    for name, tensor in fused.items():
        tensor = _turned(name, tensor)
        if ".inner.qkv." in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                ours[name.replace(".inner.qkv.", f".inner.{part}.")] = piece.contiguous()
        else:
            ours[name] = tensor
    return ours


def _turned(name: str, tensor: Tensor) -> Tensor:
    """Their linears are stored (inputs, outputs), ours (outputs, inputs)."""
    linear = ".inner." in name and tensor.ndim == 2
    return tensor.T.contiguous() if linear else tensor


def _core(*, dim: int, heads: int, **free: Any) -> TransformerConfig:
    """What all models of this form share."""
    if dim % heads:
        raise ValueError(f"width ({dim}) must be a multiple of heads ({heads})")
    return TransformerConfig(
        dim=dim,
        heads=heads,
        kv_heads=heads,
        head_dim=dim // heads,
        mlp="gelu_tanh",
        norm="layer",
        bias="all",
        position=None,
        **free,
    )


LAYOUT = Layout(
    _NAMES,
    "transformer.",
    (
        Form("GPT2LMHeadModel", VocabularyConfig(), {"head.output.weight": "lm_head.weight"}),
        Form(
            "GPT2ForSequenceClassification", LabelConfig(1, "last", bias="none"), {"head.output.weight": "score.weight"}
        ),
        Form(
            "GPT2ForTokenClassification",
            LabelConfig(1, "each"),
            {"head.output.weight": "classifier.weight", "head.output.bias": "classifier.bias"},
        ),
        Form("GPT2Model", LabelConfig(0, "each")),
    ),
    _BUFFERS,
    {"lm_head.weight": "transformer.wte.weight"},
    _fused,
    _parted,
)
