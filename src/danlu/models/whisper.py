"""Whisper's form (2212.04356): an encoder of sound, a decoder of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from danlu.models import foreign, translator
from danlu.models.architecture import Architecture, Side
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout, Weights
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig
from danlu.nn.stems import FramesConfig

EPS = 1e-5  # no key of its config.json
PLACES = 1500  # 30 seconds, 50 a second
_FORM: dict[str, Any] = {"norm": "layer", "norm_eps": EPS, "bias": "all", "position": None, "mask": "full"}


def _without_key_biases(state: Weights) -> Weights:
    """A bias of the keys adds the same to every score of a query, which softmax cancels: their form has none."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(".k.bias")}


def _with_key_biases(state: Weights) -> Weights:
    zeros = {
        name.removesuffix("weight") + "bias": torch.zeros(len(tensor), dtype=tensor.dtype)
        for name, tensor in state.items()
        if name.endswith(".k.weight")
    }
    return {**state, **zeros}


LAYOUT = Layout(
    {
        "embed.tokens.weight": "model.decoder.embed_tokens.weight",
        "embed.positions.weight": "model.decoder.embed_positions.weight",
        "encoder.embed.positions.weight": "model.encoder.embed_positions.weight",
        **both({"encoder.embed.first": "model.encoder.conv1", "encoder.embed.second": "model.encoder.conv2"}),
        **both({"core.norm": "model.decoder.layer_norm", "encoder.core.norm": "model.encoder.layer_norm"}),
        **translator.stack("encoder.", "model.encoder"),
        **translator.stack("", "model.decoder"),
    },
    "",
    (Form("WhisperForConditionalGeneration", VocabularyConfig()),),
    (),
    {"proj_out.weight": "model.decoder.embed_tokens.weight"},
    _without_key_biases,
    _with_key_biases,
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, mels: int = 80,
    places: int = PLACES, **sizes: int,
) -> Architecture:  # fmt: skip
    """One dial: width 64 per layer, `depth` layers a side, heads of 64, MLP four times the width.

    `places` of sound, two frames of the spectrogram each. `sizes` override it: width, heads, hidden. Raises ValueError
    where they do not fit together.
    """
    foreign.always_tied(tied)
    encoder = translator.sized(depth, sizes, dropout, mlp="gelu", **_FORM)
    side = Side(encoder, FramesConfig(mels, places))
    embed = TokensConfig(vocab, positions=context)
    return Architecture(translator.decoder(encoder), embed, VocabularyConfig(), context, side)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`. The decoder starts from the beginning token."""
    side, embed = architecture.encoder, architecture.embed
    stem = side.embed if side and isinstance(side.embed, FramesConfig) else FramesConfig(1, 1)
    return {
        "architectures": [LAYOUT.forms[0].stock],
        "model_type": "whisper",
        "vocab_size": getattr(embed, "vocab", 0),
        **translator.cores_to(architecture),
        "num_mel_bins": stem.mels,
        "max_source_positions": stem.positions,
        "max_target_positions": architecture.context,
        "scale_embedding": False,
        "decoder_start_token_id": tokens.get("bos_token_id", 0),
        "begin_suppress_tokens": None,
        "suppress_tokens": None,
        **tokens,
        "init_std": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    LAYOUT.form_named(config)
    foreign.only(config, scale_embedding=False)
    usual: dict[str, Any] = {
        "d_model": 384,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "encoder_ffn_dim": 1536,
        "decoder_ffn_dim": 1536,
    }
    usual |= {"encoder_attention_heads": 6, "decoder_attention_heads": 6, "dropout": 0.0}
    encoder, decoder = translator.cores_from(usual | dict(config), **_FORM)
    context = foreign.positive(config, "max_target_positions", 448)
    stem = FramesConfig(
        foreign.positive(config, "num_mel_bins", 80), foreign.positive(config, "max_source_positions", PLACES)
    )
    embed = TokensConfig(foreign.positive(config, "vocab_size", 51865), positions=context)
    return Architecture(decoder, embed, VocabularyConfig(), context, Side(encoder, stem))
