"""BART's form (1910.13461): encoder and decoder, norms after each sum and the embedding, learned positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign, translator
from danlu.models.architecture import Architecture, Side
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig

SUITS = "named"  # tasks that name it
DIALS = ("width", "heads", "hidden")
OFFSET = 2
_NAMES = {"embed.tokens.weight": "model.shared.weight"}
for _ours, _theirs in (("encoder.", "model.encoder"), ("", "model.decoder")):
    _NAMES |= translator.stack(_ours, _theirs)
    _NAMES |= both({f"{_ours}embed.norm": f"{_theirs}.layernorm_embedding"})
    _NAMES |= {f"{_ours}embed.positions.weight": f"{_theirs}.embed_positions.weight"}
LAYOUT = Layout(
    _NAMES,
    "model.",
    (
        Form("BartForConditionalGeneration", VocabularyConfig(bias="all"), {"head.bias": "final_logits_bias"}),
        Form("BartModel", VocabularyConfig(bias="all")),  # what the public pretrained files call themselves
    ),
    ("encoder.version", "decoder.version"),
    translator.COPIES,
    translator.rowed,
    translator.unrowed,
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial: width 64 per layer, `depth` layers a side, heads of 64, MLP four times the width.

    `sizes` override it: width, heads, hidden. Raises ValueError where they do not fit together.
    """
    foreign.always_tied(tied)
    encoder = translator.sized(depth, sizes, dropout, mlp="gelu", **translator.POST)
    return _architecture(encoder, translator.decoder(encoder), vocab, context, 1.0)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`. The decoder starts from the end token."""
    return {
        "architectures": [LAYOUT.forms[0].stock],
        "model_type": "bart",
        "vocab_size": architecture.tokens.vocab,
        **translator.cores_to(architecture),
        "max_position_embeddings": architecture.context,
        "scale_embedding": architecture.tokens.scale != 1.0,
        "decoder_start_token_id": tokens.get("eos_token_id", 2),
        "forced_eos_token_id": None,
        **tokens,
        "init_std": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    LAYOUT.form_named(config)
    foreign.only(config, add_final_layer_norm=False, normalize_before=False, normalize_embedding=True)
    foreign.only(config, static_position_embeddings=False, add_bias_logits=False)
    encoder, decoder = translator.cores_from(config, **translator.POST)
    scale = translator.scale_of(config, encoder.dim)
    vocab, context = foreign.positive(config, "vocab_size"), foreign.positive(config, "max_position_embeddings", 1024)
    return _architecture(encoder, decoder, vocab, context, scale)


def _architecture(
    encoder: TransformerConfig, decoder: TransformerConfig, vocab: int, context: int, scale: float
) -> Architecture:
    embed = TokensConfig(
        vocab, positions=context + OFFSET, offset=OFFSET, scale=scale, norm="layer", norm_eps=translator.EPS
    )
    return Architecture(decoder, embed, VocabularyConfig(bias="all"), context, Side(encoder, embed))
