"""RoBERTa's form (1907.11692): BERT's, with positions counted from the pad id on, and heads of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from danlu.models import encoder, foreign
from danlu.models.architecture import Architecture
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import LabelConfig

EPS = 1e-5
PAD = 1
_POOLER = "roberta.pooler.dense"
LAYOUT = Layout(
    encoder.names("roberta."),
    "roberta.",
    (
        Form(
            "RobertaForMaskedLM",
            encoder.MASKED,
            both({"head.dense": "lm_head.dense", "head.norm": "lm_head.layer_norm"}) | {"head.bias": "lm_head.bias"},
        ),
        Form(
            "RobertaForSequenceClassification",
            LabelConfig(1, "first", "tanh"),
            both({"head.dense": "classifier.dense", "head.output": "classifier.out_proj"}),
        ),
        Form(
            "RobertaForMultipleChoice",
            encoder.choice("tanh"),
            both({"head.dense": _POOLER, "head.output": "classifier"}),
        ),
        *encoder.shared_forms("Roberta"),
        Form("RobertaModel", LabelConfig(0, "first", "tanh"), both({"head.dense": _POOLER})),
    ),
    encoder.buffers("roberta."),
    {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial, as `bert.preset`; one segment type."""
    foreign.always_tied(tied)
    core = encoder.preset(depth, dropout, sizes, EPS)
    return Architecture(core, _embed(vocab, context, 1, PAD, EPS), replace(encoder.MASKED, norm_eps=EPS), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`. The pad id is the model's: its positions depend on it."""
    form = LAYOUT.form_of(architecture.head)
    assert form is not None
    return {
        **form.write(architecture.head),
        "model_type": "roberta",
        "vocab_size": architecture.tokens.vocab,
        **encoder.core_to(architecture.core),
        "max_position_embeddings": architecture.tokens.positions,
        "type_vocab_size": architecture.tokens.types,
        **tokens,
        "pad_token_id": architecture.tokens.pad,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    core = encoder.core_from(config)
    pad = config.get("pad_token_id", PAD)
    rows = foreign.positive(config, "max_position_embeddings", 512)
    if type(pad) is not int or not 0 <= pad < rows - 1:
        raise foreign.refusal("pad_token_id", pad)
    types = foreign.positive(config, "type_vocab_size", 2)
    vocab = foreign.positive(config, "vocab_size", 50265)
    context = rows - pad - 1
    vocabulary = {"norm_eps": core.norm_eps}
    head = LAYOUT.form_named(config).read(config, encoder.label_dropout(config, core), **vocabulary)
    return Architecture(core, _embed(vocab, context, types, pad, core.norm_eps), head, context)


def _embed(vocab: int, context: int, types: int, pad: int, norm_eps: float) -> TokensConfig:
    return TokensConfig(
        vocab, positions=context + pad + 1, offset=pad + 1, count="nonpad", types=types, norm="layer",
        norm_eps=norm_eps, pad=pad,
    )  # fmt: skip
