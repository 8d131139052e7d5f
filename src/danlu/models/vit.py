"""ViT's form (2010.11929): an image as a row of patches behind a class token.

Its files keep the names of transformers 4, which every version reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from danlu.models import encoder, foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.encoder import BLOCK, both
from danlu.models.layout import Form, Layout, Weights
from danlu.nn.config import TransformerConfig
from danlu.nn.heads import LabelConfig
from danlu.nn.stems import PatchesConfig

SUITS = "named"  # tasks that name it
HEAD_DIM = 64
EPS = 1e-12
TASK = "image_classification"  # of a folder whose class names none
DEPTH = 4  # where the recipe leaves it open
DIALS = ("width", "heads", "hidden", "patch")
SIZES = {
    "tiny": {"depth": 12, "width": 192},  # those of DeiT (2012.12877, table 1)
    "small": {"depth": 12, "width": 384},
    "base": {"depth": 12, "width": 768},
    "large": {"depth": 24, "width": 1024},  # 2010.11929, table 1
}
_LARGE = 128  # pixels on each side
ACTIVATIONS = {**encoder.ACTIVATIONS, "quick_gelu": "quick_gelu"}
_PARTS = {"q": "query", "k": "key", "v": "value"}


def block(ours: str, theirs: str) -> dict[str, str]:
    """The modules of a layer: our names, and theirs."""
    return {
        **{f"{ours}.attention.inner.{own}": f"{theirs}.attention.attention.{name}" for own, name in _PARTS.items()},
        f"{ours}.attention.inner.o": f"{theirs}.attention.output.dense",
        f"{ours}.attention.norm": f"{theirs}.layernorm_before",
        f"{ours}.mlp.norm": f"{theirs}.layernorm_after",
        f"{ours}.mlp.inner.up": f"{theirs}.intermediate.dense",
        f"{ours}.mlp.inner.down": f"{theirs}.output.dense",
    }


def body_names(root: str) -> dict[str, str]:
    """The tensors of stack and stem: our names, and theirs."""
    modules = {
        **block(BLOCK, f"{root}.encoder.layer.{{n}}"),
        "core.norm": f"{root}.layernorm",
        "embed.project": f"{root}.embeddings.patch_embeddings.projection",
    }
    return both(modules) | {"embed.positions.weight": f"{root}.embeddings.position_embeddings"}


_BATCHED = {
    f"{part}.{name}": axes
    for part in ("embed", "head")
    for name, axes in (("token", (1, 1)), ("positions.weight", (1,)))
}  # stored with axes of length 1 before


def _wrapped(state: Weights) -> Weights:
    return {name: tensor[(None,) * len(_BATCHED.get(name, ()))] for name, tensor in state.items()}


def _unwrapped(state: Weights) -> Weights:
    return {name: tensor[(0,) * len(_BATCHED.get(name, ()))] for name, tensor in state.items()}


EMBED = PatchesConfig
LAYOUT = Layout(
    body_names("vit") | {"embed.token": "vit.embeddings.cls_token"},
    "vit.",
    (
        Form("ViTForImageClassification", LabelConfig(1, "first"), both({"head.output": "classifier"})),
        Form("ViTModel", LabelConfig(0, "first", "tanh"), both({"head.dense": "vit.pooler.dense"})),
    ),
    (),
    {},
    _wrapped,
    _unwrapped,
)


def preset(
    vocab: int, context: int, depth: int, *, image: int = 32, channels: int = 3, tied: bool = True,
    dropout: float = 0.0, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: width 64 per layer, heads of 64, MLP four times the width; images of `image` pixels on each side.

    `sizes` override it: width, heads, hidden, patch. Raises ValueError where they do not fit together.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, DIALS)
    width = sizes.get("width", HEAD_DIM * depth)
    core = _core(
        dim=width,
        layers=depth,
        heads=sizes.get("heads", max(width // HEAD_DIM, 1)),
        hidden=sizes.get("hidden", 4 * width),
        mlp="gelu",
        norm_eps=EPS,
        dropout=dropout,
        attention_dropout=dropout,
    )
    embed = PatchesConfig(image, sizes.get("patch") or usual_patch(image), channels)
    return Architecture(core, embed, LabelConfig(1, "first"), embed.count)


def usual_patch(image: int) -> int:
    """Pixels on each side: 16 of large images (2010.11929), of small ones as many as cut them 7 times or more."""
    return 16 if image >= _LARGE else max(side for side in range(1, max(2, image // 7 + 1)) if image % side == 0)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; an image model has no tokens."""
    form = LAYOUT.form_of(architecture.head)
    assert form is not None
    return {**form.write(architecture.head), "model_type": "vit", **written(architecture, dtype)}


def written(architecture: Architecture, dtype: str) -> dict[str, Any]:
    """What config.json says of stack and stem."""
    core, embed = architecture.core, architecture.embed
    patches = embed if isinstance(embed, PatchesConfig) else PatchesConfig(1, 1)
    return {
        "hidden_size": core.dim,
        "num_hidden_layers": core.layers,
        "num_attention_heads": core.heads,
        "intermediate_size": core.hidden,
        "hidden_act": next((theirs for theirs, ours in ACTIVATIONS.items() if ours == core.mlp), core.mlp),
        "hidden_dropout_prob": core.dropout,
        "attention_probs_dropout_prob": core.attention_dropout,
        "layer_norm_eps": core.norm_eps,
        "image_size": patches.image,
        "patch_size": patches.patch,
        "num_channels": patches.channels,
        "qkv_bias": True,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, pooler_act="tanh")
    foreign.only(config, pooler_output_size=config.get("hidden_size", 768))
    return replace(body(config), head=LAYOUT.form_named(config).read(config))


def body(config: Mapping[str, Any]) -> Architecture:
    """All but the head of a config.json."""
    foreign.only(config, qkv_bias=True)
    dim, heads = foreign.positive(config, "hidden_size", 768), foreign.positive(config, "num_attention_heads", 12)
    kind = config.get("hidden_act", "gelu")
    if dim % heads or kind not in ACTIVATIONS:
        raise foreign.refusal("num_attention_heads" if dim % heads else "hidden_act", heads if dim % heads else kind)
    core = _core(
        dim=dim,
        heads=heads,
        layers=foreign.positive(config, "num_hidden_layers", 12),
        hidden=foreign.positive(config, "intermediate_size", 3072),
        mlp=ACTIVATIONS[kind],
        norm_eps=foreign.number(config, "layer_norm_eps", 1e-12),
        dropout=foreign.number(config, "hidden_dropout_prob", 0.0),
        attention_dropout=foreign.number(config, "attention_probs_dropout_prob", 0.0),
    )
    embed = patches(config, 224, 16)
    return Architecture(core, embed, LabelConfig(1, "first"), embed.count)


def patches(config: Mapping[str, Any], image: int, patch: int, **form: Any) -> PatchesConfig:
    """The stem of a config.json, with the sizes where it gives none; E320 for one that is no square of squares."""
    image, patch = foreign.positive(config, "image_size", image), foreign.positive(config, "patch_size", patch)
    if patch > image:
        raise foreign.refusal("patch_size", patch)
    return PatchesConfig(image, patch, foreign.positive(config, "num_channels", 3), **form)


def _core(*, dim: int, heads: int, **free: Any) -> TransformerConfig:
    if dim % heads:
        raise ValueError(f"width ({dim}) must be a multiple of heads ({heads})")
    return TransformerConfig(
        dim=dim, heads=heads, kv_heads=heads, head_dim=dim // heads, norm="layer", bias="all", position=None,
        mask="full", **free,
    )  # fmt: skip
