"""What bart, marian and whisper share: encoder and decoder whose every linear has a bias, names and config keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.encoder import both
from danlu.models.layout import Weights
from danlu.nn.config import TransformerConfig

HEAD_DIM = 64
EPS = 1e-5  # no key of bart's or marian's config.json
POST: dict[str, Any] = {  # the stacks of 2017: norms after each sum, positions in the embedding
    "norm": "layer", "norm_eps": EPS, "placement": "post", "bias": "all", "position": None, "mask": "full"
}  # fmt: skip
_COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
COPIES = dict.fromkeys(_COPIES, "model.shared.weight")  # of the one table, in files: both sides' and the head's
ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "swish": "silu", "silu": "silu"
}  # fmt: skip


def stack(ours: str, theirs: str) -> dict[str, str]:
    """The blocks of one side; both norms of a sub-layer's sum stand under its own name."""
    block, layer = f"{ours}core.blocks.{{n}}", f"{theirs}.layers.{{n}}"
    modules: dict[str, str] = {}
    for part, attention in (("attention", "self_attn"), ("across", "encoder_attn")):
        modules |= {f"{block}.{part}.inner.{name}": f"{layer}.{attention}.{name}_proj" for name in "qkv"}
        modules |= {f"{block}.{part}.inner.o": f"{layer}.{attention}.out_proj"}
        modules |= {f"{block}.{part}.norm": f"{layer}.{attention}_layer_norm"}
    modules |= {f"{block}.mlp.inner.up": f"{layer}.fc1", f"{block}.mlp.inner.down": f"{layer}.fc2"}
    return both(modules | {f"{block}.mlp.norm": f"{layer}.final_layer_norm"})


def sized(depth: int, sizes: Mapping[str, int], dropout: float, **form: Any) -> TransformerConfig:
    """A preset's encoder. One dial: width 64 per layer, heads of 64, MLP four times the width; `sizes` override it."""
    check_sizes(sizes, ("width", "heads", "hidden"))
    width = sizes.get("width", HEAD_DIM * depth)
    heads = sizes.get("heads", max(width // HEAD_DIM, 1))
    if width % heads:
        raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
    return TransformerConfig(
        dim=width, layers=depth, heads=heads, kv_heads=heads, head_dim=width // heads,
        hidden=sizes.get("hidden", 4 * width), dropout=dropout, **form,
    )  # fmt: skip


def decoder(encoder: TransformerConfig, **changes: Any) -> TransformerConfig:
    """The decoder beside such an encoder."""
    return replace(encoder, mask="causal", memory=encoder.dim, **changes)


def cores_to(architecture: Architecture) -> dict[str, Any]:
    """The keys of both stacks."""
    core, side = architecture.core, architecture.encoder
    other = side.core if side else core
    return {
        "d_model": core.dim,
        "encoder_layers": other.layers,
        "encoder_attention_heads": other.heads,
        "encoder_ffn_dim": other.hidden,
        "decoder_layers": core.layers,
        "decoder_attention_heads": core.heads,
        "decoder_ffn_dim": core.hidden,
        "activation_function": next((theirs for theirs, ours in ACTIVATIONS.items() if ours == core.mlp), core.mlp),
        "dropout": core.dropout,
        "attention_dropout": core.attention_dropout,
        "activation_dropout": 0.0,
        "is_encoder_decoder": True,
    }


def cores_from(config: Mapping[str, Any], **form: Any) -> tuple[TransformerConfig, TransformerConfig]:
    """Encoder and decoder of a config.json; E320 for what danlu does not carry.

    How the file's own training dropped activations and layers changes nothing of what the model computes.
    """
    kind = config.get("activation_function", "gelu")
    if kind not in ACTIVATIONS:
        raise foreign.refusal("activation_function", kind)
    foreign.only(config, tie_word_embeddings=True)
    dim = foreign.positive(config, "d_model", 1024)
    sides = {}
    for side in ("encoder", "decoder"):
        heads = foreign.positive(config, f"{side}_attention_heads", 16)
        if dim % heads:
            raise foreign.refusal(f"{side}_attention_heads", heads)
        sides[side] = TransformerConfig(
            dim=dim,
            heads=heads,
            kv_heads=heads,
            head_dim=dim // heads,
            layers=foreign.positive(config, f"{side}_layers", 12),
            hidden=foreign.positive(config, f"{side}_ffn_dim", 4096),
            mlp=ACTIVATIONS[kind],
            dropout=foreign.number(config, "dropout", 0.1),
            attention_dropout=foreign.number(config, "attention_dropout", 0.0),
            **form,
        )
    return sides["encoder"], decoder(sides["decoder"])


def scale_of(config: Mapping[str, Any], dim: int) -> float:
    """By what the vectors of tokens are multiplied."""
    return dim**0.5 if config.get("scale_embedding", False) else 1.0


def rowed(state: Weights) -> Weights:
    """Their output bias is a row (1, V)."""
    return {name: tensor[None] if name == "head.bias" else tensor for name, tensor in state.items()}


def unrowed(state: Weights) -> Weights:
    """The way back; files without that bias mean zeros."""
    table = state.get("embed.tokens.weight")
    if table is not None and "head.bias" not in state:
        state = {**state, "head.bias": torch.zeros(1, len(table), dtype=table.dtype)}
    return {name: tensor[0] if name == "head.bias" else tensor for name, tensor in state.items()}
