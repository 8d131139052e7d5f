"""What BERT and its kin share (bert, roberta, electra, distilbert): norms after each sum, names and config keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import check_sizes
from danlu.models.layout import Form
from danlu.nn.config import TransformerConfig
from danlu.nn.heads import JointConfig, LabelConfig, VocabularyConfig

HEAD_DIM = 64
BLOCK = "core.blocks.{n}"
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
MASKED = VocabularyConfig(bias="all", transform="gelu")
JOINT = JointConfig(MASKED, LabelConfig(2, "first", "tanh"))


def both(modules: Mapping[str, str]) -> dict[str, str]:
    """The weight and the bias of each module."""
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs in modules.items() for leaf in ("weight", "bias")}


def names(prefix: str) -> dict[str, str]:
    """The backbone of bert, roberta and electra, all of whose names begin with `prefix`."""
    layer = f"{prefix}encoder.layer.{{n}}"
    parts = {"q": "query", "k": "key", "v": "value"}
    modules = {
        **{f"{BLOCK}.attention.inner.{ours}": f"{layer}.attention.self.{theirs}" for ours, theirs in parts.items()},
        f"{BLOCK}.attention.inner.o": f"{layer}.attention.output.dense",
        f"{BLOCK}.attention.norm": f"{layer}.attention.output.LayerNorm",
        f"{BLOCK}.mlp.inner.up": f"{layer}.intermediate.dense",
        f"{BLOCK}.mlp.inner.down": f"{layer}.output.dense",
        f"{BLOCK}.mlp.norm": f"{layer}.output.LayerNorm",
        "embed.norm": f"{prefix}embeddings.LayerNorm",
        "embed.project": f"{prefix}embeddings_project",
    }
    tables = {"tokens": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings"}
    return both(modules) | {
        f"embed.{ours}.weight": f"{prefix}embeddings.{theirs}.weight" for ours, theirs in tables.items()
    }


def buffers(prefix: str) -> tuple[str, ...]:
    """What old files also hold: the numbers 0, 1, 2 ..."""
    return f"{prefix}embeddings.position_ids", f"{prefix}embeddings.token_type_ids"


def shared_forms(stock: str) -> tuple[Form, ...]:
    """The classes that are alike in all of them: labels of tokens, and a span."""
    return (
        Form(f"{stock}ForTokenClassification", LabelConfig(1, "each"), both({"head.output": "classifier"})),
        Form(f"{stock}ForQuestionAnswering", SPAN, both({"head.output": "qa_outputs"})),
    )


SPAN = LabelConfig(2, "each", answer="span")


def choice(hidden: str) -> LabelConfig:
    """One logit per candidate, each candidate being a row of the batch."""
    return LabelConfig(1, "first", hidden, answer="choice")


def core(*, dim: int, heads: int, mlp: str = "gelu", **free: Any) -> TransformerConfig:
    """A core of this kind. Raises ValueError where the heads do not divide the width."""
    if dim % heads:
        raise ValueError(f"width ({dim}) must be a multiple of heads ({heads})")
    return TransformerConfig(
        dim=dim, heads=heads, kv_heads=heads, head_dim=dim // heads, mlp=mlp, norm="layer", placement="post",
        bias="all", position=None, mask="full", **free,
    )  # fmt: skip


def preset(depth: int, dropout: float, sizes: Mapping[str, int], norm_eps: float) -> TransformerConfig:
    """One dial: width 64 per layer, heads of 64, MLP four times the width; `sizes` override it."""
    check_sizes(sizes, ("width", "heads", "hidden"))
    width = sizes.get("width", HEAD_DIM * depth)
    return core(
        dim=width,
        layers=depth,
        heads=sizes.get("heads", max(width // HEAD_DIM, 1)),
        hidden=sizes.get("hidden", 4 * width),
        norm_eps=norm_eps,
        dropout=dropout,
        attention_dropout=dropout,
    )


def core_to(core: TransformerConfig) -> dict[str, Any]:
    """The keys of bert, roberta and electra for the core."""
    return {
        "hidden_size": core.dim,
        "num_hidden_layers": core.layers,
        "num_attention_heads": core.heads,
        "intermediate_size": core.hidden,
        "hidden_act": activation_name(core.mlp),
        "hidden_dropout_prob": core.dropout,
        "attention_probs_dropout_prob": core.attention_dropout,
        "layer_norm_eps": core.norm_eps,
    }


def core_from(config: Mapping[str, Any]) -> TransformerConfig:
    """The core of their config.json; E320 for what danlu does not carry."""
    foreign.only(config, is_decoder=False, add_cross_attention=False, position_embedding_type="absolute")
    foreign.only(config, tie_word_embeddings=True)
    dim, heads = foreign.positive(config, "hidden_size", 768), foreign.positive(config, "num_attention_heads", 12)
    if dim % heads:
        raise foreign.refusal("num_attention_heads", heads)
    return core(
        dim=dim,
        heads=heads,
        layers=foreign.positive(config, "num_hidden_layers", 12),
        hidden=foreign.positive(config, "intermediate_size", 3072),
        mlp=activation(config, "hidden_act"),
        norm_eps=foreign.number(config, "layer_norm_eps", 1e-12),
        dropout=foreign.number(config, "hidden_dropout_prob", 0.1),
        attention_dropout=foreign.number(config, "attention_probs_dropout_prob", 0.1),
    )


def label_dropout(config: Mapping[str, Any], core: TransformerConfig) -> float:
    """Of the labels' heads, in training."""
    given = config.get("classifier_dropout")
    return core.dropout if given is None else foreign.number(config, "classifier_dropout", 0.0)


def activation(config: Mapping[str, Any], key: str) -> str:
    """Our name of their activation."""
    kind = config.get(key, "gelu")
    if kind not in ACTIVATIONS:
        raise foreign.refusal(key, kind)
    return ACTIVATIONS[kind]


def activation_name(kind: str) -> str:
    """Their name of ours; for one that they lack its own, which no reader takes."""
    return next((theirs for theirs, ours in ACTIVATIONS.items() if ours == kind), kind)
