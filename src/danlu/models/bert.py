"""BERT's form (1810.04805): every token sees all, LayerNorm after each sum, learned positions and segment types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import encoder, foreign
from danlu.models.architecture import Architecture
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import LabelConfig

SUITS = "texts"  # tasks of texts that name no other form
DIALS = ("width", "heads", "hidden")
TOKENIZER = "wordpiece"
EPS = 1e-12
_WORDS, _POOLER = "cls.predictions", "bert.pooler.dense"
_POOLED = both({"head.dense": _POOLER, "head.output": "classifier"})
_MASKED = {"dense": f"{_WORDS}.transform.dense", "norm": f"{_WORDS}.transform.LayerNorm"}
LAYOUT = Layout(
    encoder.names("bert."),
    "bert.",
    (
        Form(
            "BertForMaskedLM",
            encoder.MASKED,
            both({f"head.{ours}": theirs for ours, theirs in _MASKED.items()}) | {"head.bias": f"{_WORDS}.bias"},
        ),
        Form(
            "BertForPreTraining",
            encoder.JOINT,
            both({f"head.vocabulary.{ours}": theirs for ours, theirs in _MASKED.items()})
            | {"head.vocabulary.bias": f"{_WORDS}.bias"}
            | both({"head.label.dense": _POOLER, "head.label.output": "cls.seq_relationship"}),
        ),
        Form("BertForSequenceClassification", LabelConfig(1, "first", "tanh"), _POOLED),
        Form("BertForMultipleChoice", encoder.choice("tanh"), _POOLED),
        *encoder.shared_forms("Bert"),
        Form("BertModel", LabelConfig(0, "first", "tanh"), both({"head.dense": _POOLER})),
    ),
    encoder.buffers("bert."),
    {
        f"{_WORDS}.decoder.weight": "bert.embeddings.word_embeddings.weight",
        f"{_WORDS}.decoder.bias": f"{_WORDS}.bias",
    },
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial: width 64 per layer, heads of 64, MLP four times the width; two segment types, a head for masked words.

    `sizes` override it: width, heads, hidden. Raises ValueError where they do not fit together.
    """
    foreign.always_tied(tied)
    core = encoder.preset(depth, dropout, sizes, EPS)
    embed = TokensConfig(vocab, positions=context, types=2, norm="layer", norm_eps=EPS)
    return Architecture(core, embed, encoder.MASKED, context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`."""
    form = LAYOUT.form_of(architecture.head)
    assert form is not None
    return {
        **form.write(architecture.head),
        "model_type": "bert",
        "vocab_size": architecture.tokens.vocab,
        **encoder.core_to(architecture.core),
        "max_position_embeddings": architecture.context,
        "type_vocab_size": architecture.tokens.types,
        **tokens,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    core = encoder.core_from(config)
    context = foreign.positive(config, "max_position_embeddings", 512)
    types = foreign.positive(config, "type_vocab_size", 2)
    embed = TokensConfig(
        foreign.positive(config, "vocab_size", 30522), positions=context, types=types, norm="layer",
        norm_eps=core.norm_eps,
    )  # fmt: skip
    transform = {"transform": core.mlp, "norm_eps": core.norm_eps}
    head = LAYOUT.form_named(config).read(config, encoder.label_dropout(config, core), **transform)
    return Architecture(core, embed, head, context)
