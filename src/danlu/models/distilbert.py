"""DistilBERT's form (1910.01108): BERT's without segment types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import encoder, foreign
from danlu.models.architecture import Architecture
from danlu.models.encoder import BLOCK, both
from danlu.models.layout import Form, Layout
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import LabelConfig

EPS = 1e-12  # no key of its config.json
_LAYER = "distilbert.transformer.layer.{n}"
_MODULES = {
    **{f"{BLOCK}.attention.inner.{part}": f"{_LAYER}.attention.{part}_lin" for part in "qkv"},
    f"{BLOCK}.attention.inner.o": f"{_LAYER}.attention.out_lin",
    f"{BLOCK}.attention.norm": f"{_LAYER}.sa_layer_norm",
    f"{BLOCK}.mlp.inner.up": f"{_LAYER}.ffn.lin1",
    f"{BLOCK}.mlp.inner.down": f"{_LAYER}.ffn.lin2",
    f"{BLOCK}.mlp.norm": f"{_LAYER}.output_layer_norm",
    "embed.norm": "distilbert.embeddings.LayerNorm",
}
_TABLES = {
    "embed.tokens.weight": "distilbert.embeddings.word_embeddings.weight",
    "embed.positions.weight": "distilbert.embeddings.position_embeddings.weight",
}
_POOLED = both({"head.dense": "pre_classifier", "head.output": "classifier"})
LAYOUT = Layout(
    both(_MODULES) | _TABLES,
    "distilbert.",
    (
        Form(
            "DistilBertForMaskedLM",
            encoder.MASKED,
            both({"head.dense": "vocab_transform", "head.norm": "vocab_layer_norm"})
            | {"head.bias": "vocab_projector.bias"},
        ),
        Form("DistilBertForSequenceClassification", LabelConfig(1, "first", "relu"), _POOLED),
        Form("DistilBertForMultipleChoice", encoder.choice("relu"), _POOLED),
        *encoder.shared_forms("DistilBert"),
        Form("DistilBertModel", LabelConfig(0, "each")),
    ),
    encoder.buffers("distilbert."),
    {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial, as `bert.preset`."""
    foreign.always_tied(tied)
    return Architecture(encoder.preset(depth, dropout, sizes, EPS), _embed(vocab, context), encoder.MASKED, context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`."""
    core, head, form = architecture.core, architecture.head, LAYOUT.form_of(architecture.head)
    assert form is not None
    dropout = getattr(head, "dropout", core.dropout)
    return {
        **form.write(head),
        "model_type": "distilbert",
        "vocab_size": architecture.tokens.vocab,
        "dim": core.dim,
        "n_layers": core.layers,
        "n_heads": core.heads,
        "hidden_dim": core.hidden,
        "activation": encoder.activation_name(core.mlp),
        "dropout": core.dropout,
        "attention_dropout": core.attention_dropout,
        "seq_classif_dropout": dropout,
        "qa_dropout": dropout,
        "sinusoidal_pos_embds": False,
        "max_position_embeddings": architecture.context,
        **tokens,
        "initializer_range": 0.02,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    foreign.only(config, sinusoidal_pos_embds=False, tie_word_embeddings=True)
    dim, heads = foreign.positive(config, "dim", 768), foreign.positive(config, "n_heads", 12)
    if dim % heads:
        raise foreign.refusal("n_heads", heads)
    core = encoder.core(
        dim=dim,
        heads=heads,
        layers=foreign.positive(config, "n_layers", 6),
        hidden=foreign.positive(config, "hidden_dim", 3072),
        mlp=encoder.activation(config, "activation"),
        norm_eps=EPS,
        dropout=foreign.number(config, "dropout", 0.1),
        attention_dropout=foreign.number(config, "attention_dropout", 0.1),
    )
    form = LAYOUT.form_named(config)
    dropout = foreign.number(config, "qa_dropout" if form.head == encoder.SPAN else "seq_classif_dropout", 0.1)
    vocab, context = (
        foreign.positive(config, "vocab_size", 30522),
        foreign.positive(config, "max_position_embeddings", 512),
    )
    return Architecture(core, _embed(vocab, context), form.read(config, dropout, transform=core.mlp), context)


def _embed(vocab: int, context: int) -> TokensConfig:
    return TokensConfig(vocab, positions=context, norm="layer", norm_eps=EPS)
