"""MAE's form (2111.06377): a ViT that reads some patches, and a light decoder that paints the others.

Tuned for labels it is a plain ViT. Here both tables of places learn; they begin as the fixed sines of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from danlu.models import foreign, vit
from danlu.models.architecture import Architecture
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.config import TransformerConfig
from danlu.nn.painting import PixelsConfig
from danlu.nn.stems import PatchesConfig

TASK = "masked_image_modeling"  # of a folder whose class names none
LABELLED = "vit"  # the family that it is of with a head for labels
DEPTH = vit.DEPTH
LAYERS = 2  # of the decoder
_SHARE = 0.75
_TARGETS = {True: "patch", False: "picture"}
_LAYER = "decoder.decoder_layers.{n}"
_DECODER = {
    **vit.block("head.core.blocks.{n}", _LAYER),
    "head.core.norm": "decoder.decoder_norm",
    "head.enter": "decoder.decoder_embed",
    "head.output": "decoder.decoder_pred",
}
_BARE = {"head.token": "decoder.mask_token", "head.positions.weight": "decoder.decoder_pos_embed"}

EMBED = PatchesConfig
_NO_HEAD = PixelsConfig(TransformerConfig(4, 1, 1, 1, 4, 4), 1, 1)
LAYOUT = Layout(
    vit.LAYOUT.names,
    "vit.",
    (Form("ViTMAEForPreTraining", _NO_HEAD, both(_DECODER) | _BARE),),
    (),
    {},
    vit.LAYOUT.to_theirs,
    vit.LAYOUT.to_ours,
    {"decoder_encoder.layer.": "decoder_layers."},  # transformers 5
)


def preset(vocab: int, context: int, depth: int, **choices: Any) -> Architecture:
    """As a ViT, with a decoder of two layers of half its width. Raises ValueError where sizes do not fit together."""
    made = vit.preset(vocab, context, depth, **choices)
    return replace(made, head=decoder(made, LAYERS, _SHARE, "patch"))


def decoder(architecture: Architecture, layers: int, share: float, target: str) -> PixelsConfig:
    """A decoder for an encoder: half its heads, each as wide."""
    core, embed = architecture.core, architecture.embed
    assert isinstance(embed, PatchesConfig)
    heads = max(1, core.heads // 2)
    width = heads * core.head_dim
    smaller = replace(core, layers=layers, dim=width, heads=heads, kv_heads=heads, hidden=4 * width)
    return PixelsConfig(smaller, embed.count - embed.tokens, embed.channels * embed.patch**2, share, target)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; an image model has no tokens."""
    head = architecture.head
    painter = head if isinstance(head, PixelsConfig) else _NO_HEAD
    return {
        **LAYOUT.forms[0].write(head),
        **vit.written(architecture, dtype),
        "model_type": "vit_mae",
        "decoder_hidden_size": painter.core.dim,
        "decoder_num_hidden_layers": painter.core.layers,
        "decoder_num_attention_heads": painter.core.heads,
        "decoder_intermediate_size": painter.core.hidden,
        "mask_ratio": painter.share,
        "norm_pix_loss": painter.target == "patch",
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    LAYOUT.form_named(config)
    made = vit.body(config)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    usual = dict(zip(names, (512, 8, 16, 2048), strict=True))
    told = {name: foreign.positive(config, f"decoder_{name}", usual[name]) for name in names}
    if told["hidden_size"] % told["num_attention_heads"]:
        raise foreign.refusal("decoder_num_attention_heads", told["num_attention_heads"])
    share = foreign.number(config, "mask_ratio", _SHARE)
    if not 0 < share < 1:
        raise foreign.refusal("mask_ratio", share)
    head = decoder(made, told["num_hidden_layers"], share, _TARGETS[bool(config.get("norm_pix_loss"))])
    width, heads = told["hidden_size"], told["num_attention_heads"]
    core = replace(head.core, dim=width, heads=heads, kv_heads=heads, head_dim=width // heads,
                   hidden=told["intermediate_size"])  # fmt: skip
    return replace(made, head=replace(head, core=core))
