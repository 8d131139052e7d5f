"""ELECTRA's form (2003.10555): BERT's, with narrower tables; it is taught to tell replaced tokens from real ones."""

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
REPLACED = LabelConfig(1, "each", "gelu", answer="replaced")
_GENERATOR, _TOLD = "generator_predictions", "discriminator_predictions"
LAYOUT = Layout(
    encoder.names("electra."),
    "electra.",
    (
        Form(
            "ElectraForPreTraining",
            REPLACED,
            both({"head.dense": f"{_TOLD}.dense", "head.output": f"{_TOLD}.dense_prediction"}),
        ),
        Form(
            "ElectraForMaskedLM",
            encoder.MASKED,
            both({"head.dense": f"{_GENERATOR}.dense", "head.norm": f"{_GENERATOR}.LayerNorm"})
            | {"head.bias": "generator_lm_head.bias"},
        ),
        Form(
            "ElectraForSequenceClassification",
            LabelConfig(1, "first", "gelu"),
            both({"head.dense": "classifier.dense", "head.output": "classifier.out_proj"}),
        ),
        Form(
            "ElectraForMultipleChoice",
            encoder.choice("gelu"),
            both({"head.dense": "sequence_summary.summary", "head.output": "classifier"}),
        ),
        *encoder.shared_forms("Electra"),
        Form("ElectraModel", LabelConfig(0, "each")),
    ),
    encoder.buffers("electra."),
    {"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, table: int = 0, **sizes: int
) -> Architecture:
    """One dial, as `bert.preset`; `table` is the width of the tables, half the stack's by default."""
    foreign.always_tied(tied)
    core = encoder.preset(depth, dropout, sizes, EPS)
    return Architecture(core, _embed(vocab, table or core.dim // 2, core.dim, context, 2, EPS), REPLACED, context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`."""
    form, embed = LAYOUT.form_of(architecture.head), architecture.tokens
    assert form is not None
    return {
        **form.write(architecture.head),
        "model_type": "electra",
        "vocab_size": embed.vocab,
        "embedding_size": embed.width or architecture.core.dim,
        **encoder.core_to(architecture.core),
        "max_position_embeddings": architecture.context,
        "type_vocab_size": embed.types,
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_activation": "gelu",
        **tokens,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, summary_type="first", summary_use_proj=True, summary_activation="gelu")
    defaults = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    core = encoder.core_from(defaults | dict(config))
    form = LAYOUT.form_named(config)
    if form.head == REPLACED and core.mlp != "gelu":  # that head's activation is the stack's
        raise foreign.refusal("hidden_act", config["hidden_act"])
    context = foreign.positive(config, "max_position_embeddings", 512)
    types, vocab = foreign.positive(config, "type_vocab_size", 2), foreign.positive(config, "vocab_size", 30522)
    width = foreign.positive(config, "embedding_size", 128)
    head = form.read(config, encoder.label_dropout(config, core), norm_eps=core.norm_eps)
    return Architecture(core, _embed(vocab, width, core.dim, context, types, core.norm_eps), head, context)


def _embed(vocab: int, width: int, dim: int, context: int, types: int, norm_eps: float) -> TokensConfig:
    width = 0 if width == dim else width
    return TokensConfig(vocab, width, positions=context, types=types, norm="layer", norm_eps=norm_eps)
