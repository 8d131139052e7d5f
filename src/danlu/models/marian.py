"""The Transformer of 2017 (1706.03762) as Marian's files hold it: norms after each sum, sinusoids, scaled vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign, translator
from danlu.models.architecture import Architecture, Side
from danlu.models.layout import Form, Layout
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig

SUITS = "named"  # tasks that name it
DIALS = ("width", "heads", "hidden")
LAYOUT = Layout(
    {
        "embed.tokens.weight": "model.shared.weight",
        **translator.stack("encoder.", "model.encoder"),
        **translator.stack("", "model.decoder"),
    },
    "",
    (Form("MarianMTModel", VocabularyConfig(bias="all"), {"head.bias": "final_logits_bias"}),),
    ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"),
    translator.COPIES,
    translator.rowed,
    translator.unrowed,
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """The article's: ReLU, `depth` layers a side, width 64 per layer, heads of 64, MLP four times the width.

    `sizes` override it: width, heads, hidden. Raises ValueError where they do not fit together.
    """
    foreign.always_tied(tied)
    encoder = translator.sized(depth, sizes, dropout, mlp="relu", **translator.POST)
    return _architecture(encoder, translator.decoder(encoder), vocab, context, encoder.dim**0.5)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`. The decoder starts from the pad."""
    return {
        "architectures": [LAYOUT.forms[0].stock],
        "model_type": "marian",
        "vocab_size": architecture.tokens.vocab,
        "decoder_vocab_size": architecture.tokens.vocab,
        **translator.cores_to(architecture),
        "max_position_embeddings": architecture.context,
        "scale_embedding": architecture.tokens.scale != 1.0,
        "share_encoder_decoder_embeddings": True,
        "decoder_start_token_id": tokens.get("pad_token_id", 0),
        "forced_eos_token_id": None,
        **tokens,
        "init_std": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    LAYOUT.form_named(config)
    foreign.only(config, share_encoder_decoder_embeddings=True, normalize_before=False, normalize_embedding=False)
    foreign.only(config, add_final_layer_norm=False)
    vocab, context = foreign.positive(config, "vocab_size"), foreign.positive(config, "max_position_embeddings", 1024)
    foreign.only(config, decoder_vocab_size=vocab)
    encoder, decoder = translator.cores_from(config, **translator.POST)
    scale = translator.scale_of(config, encoder.dim)
    return _architecture(encoder, decoder, vocab, context, scale)


def _architecture(
    encoder: TransformerConfig, decoder: TransformerConfig, vocab: int, context: int, scale: float
) -> Architecture:
    embed = TokensConfig(vocab, positions=context, table="sinusoid", scale=scale)
    return Architecture(decoder, embed, VocabularyConfig(bias="all"), context, Side(encoder, embed))
