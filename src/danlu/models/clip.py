"""CLIP's form (2103.00020): a stack for texts and one for images, compared in one space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from danlu.models import foreign, vit
from danlu.models.architecture import Architecture, Side, check_sizes
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import PairConfig
from danlu.nn.stems import PatchesConfig

HEAD_DIM = 64
EPS = 1e-5
EOS = 49407
HIGHEST = 2  # an end id of old files: it means the highest id of each text
ACTIVATIONS = vit.ACTIVATIONS


def _stack(ours: str, theirs: str) -> dict[str, str]:
    block, layer = f"{ours}core.blocks.{{n}}", f"{theirs}.encoder.layers.{{n}}"
    return both(
        {
            **{f"{block}.attention.inner.{part}": f"{layer}.self_attn.{part}_proj" for part in "qkv"},
            f"{block}.attention.inner.o": f"{layer}.self_attn.out_proj",
            f"{block}.attention.norm": f"{layer}.layer_norm1",
            f"{block}.mlp.norm": f"{layer}.layer_norm2",
            f"{block}.mlp.inner.up": f"{layer}.mlp.fc1",
            f"{block}.mlp.inner.down": f"{layer}.mlp.fc2",
        }
    )


_TEXT, _IMAGE = "text_model.embeddings", "vision_model.embeddings"
LAYOUT = Layout(
    {
        **_stack("", "text_model"),
        **_stack("encoder.", "vision_model"),
        **both({"core.norm": "text_model.final_layer_norm", "encoder.core.norm": "vision_model.post_layernorm"}),
        **both({"encoder.embed.norm": "vision_model.pre_layrnorm"}),  # [sic]
        "embed.tokens.weight": f"{_TEXT}.token_embedding.weight",
        "embed.positions.weight": f"{_TEXT}.position_embedding.weight",
        "encoder.embed.project.weight": f"{_IMAGE}.patch_embedding.weight",
        "encoder.embed.token": f"{_IMAGE}.class_embedding",
        "encoder.embed.positions.weight": f"{_IMAGE}.position_embedding.weight",
    },
    "",
    (
        Form(
            "CLIPModel",
            PairConfig(1, EOS),
            {
                "head.text.weight": "text_projection.weight",
                "head.image.weight": "visual_projection.weight",
                "head.sharpness": "logit_scale",
            },
        ),
    ),
    (f"{_TEXT}.position_ids", f"{_IMAGE}.position_ids"),
)


def preset(
    vocab: int, context: int, depth: int, *, dropout: float = 0.0, image: int = 224, patch: int = 16, eos: int = EOS,
    **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial for both sides: width 64 per layer, heads of 64, MLP four times the width, a space of that width.

    `sizes` override it: width, heads, hidden. Raises ValueError where they do not fit together.
    """
    check_sizes(sizes, ("width", "heads", "hidden"))
    width = sizes.get("width", HEAD_DIM * depth)
    core = _core(
        dim=width, layers=depth, heads=sizes.get("heads", max(width // HEAD_DIM, 1)),
        hidden=sizes.get("hidden", 4 * width), mlp="quick_gelu", norm_eps=EPS, attention_dropout=dropout,
    )  # fmt: skip
    side = Side(_core_full(core), PatchesConfig(image, patch, bias="none", norm="layer", norm_eps=EPS))
    return Architecture(core, TokensConfig(vocab, positions=context), PairConfig(width, eos), context, side)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json with a table for each side; the end token is the model's own: its texts are read there."""
    head, side, embed = architecture.head, architecture.encoder, architecture.embed
    assert isinstance(head, PairConfig)
    stem = side.embed if side and isinstance(side.embed, PatchesConfig) else PatchesConfig(1, 1)
    eos = HIGHEST if head.eos < 0 else head.eos
    text = {
        **_core_to(architecture.core), **tokens, "model_type": "clip_text_model", "eos_token_id": eos,
        "vocab_size": getattr(embed, "vocab", 0), "max_position_embeddings": architecture.context,
        "projection_dim": head.width,
    }  # fmt: skip
    image = {
        **_core_to(side.core if side else architecture.core), "model_type": "clip_vision_model",
        "image_size": stem.image, "patch_size": stem.patch, "num_channels": stem.channels,
        "projection_dim": head.width,
    }  # fmt: skip
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": head.width,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": image,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    LAYOUT.form_named(config)
    text, image = dict(config.get("text_config") or {}), dict(config.get("vision_config") or {})
    core = _core_from(text, {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048})
    other = _core_from(image, {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072})
    eos = text.get("eos_token_id", EOS)
    if type(eos) is not int:
        raise foreign.refusal("eos_token_id", eos)
    context = foreign.positive(text, "max_position_embeddings", 77)
    stem = vit.patches(image, 224, 32, bias="none", norm="layer", norm_eps=other.norm_eps)
    head = PairConfig(foreign.positive(config, "projection_dim", 512), -1 if eos == HIGHEST else eos)
    embed = TokensConfig(foreign.positive(text, "vocab_size", 49408), positions=context)
    return Architecture(core, embed, head, context, Side(_core_full(other), stem))


def _core_to(core: TransformerConfig) -> dict[str, Any]:
    return {
        "hidden_size": core.dim,
        "num_hidden_layers": core.layers,
        "num_attention_heads": core.heads,
        "intermediate_size": core.hidden,
        "hidden_act": next((theirs for theirs, ours in ACTIVATIONS.items() if ours == core.mlp), core.mlp),
        "layer_norm_eps": core.norm_eps,
        "attention_dropout": core.attention_dropout,
    }


def _core_from(config: Mapping[str, Any], usual: Mapping[str, int]) -> TransformerConfig:
    sizes = {key: foreign.positive(config, key, value) for key, value in usual.items()}
    kind = config.get("hidden_act", "quick_gelu")
    if kind not in ACTIVATIONS:
        raise foreign.refusal("hidden_act", kind)
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise foreign.refusal("num_attention_heads", sizes["num_attention_heads"])
    return _core(
        dim=sizes["hidden_size"],
        heads=sizes["num_attention_heads"],
        hidden=sizes["intermediate_size"],
        layers=foreign.positive(config, "num_hidden_layers", 12),
        mlp=ACTIVATIONS[kind],
        norm_eps=foreign.number(config, "layer_norm_eps", EPS),
        attention_dropout=foreign.number(config, "attention_dropout", 0.0),
    )


def _core(*, dim: int, heads: int, mask: str = "causal", **free: Any) -> TransformerConfig:
    if dim % heads:
        raise ValueError(f"width ({dim}) must be a multiple of heads ({heads})")
    return TransformerConfig(
        dim=dim, heads=heads, kv_heads=heads, head_dim=dim // heads, norm="layer", bias="all", position=None,
        mask=mask, **free,
    )  # fmt: skip


def _core_full(core: TransformerConfig) -> TransformerConfig:
    """The images' side: every patch sees all."""
    return replace(core, mask="full")
