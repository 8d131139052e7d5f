"""T5's form (1910.10683; 1.1: 2002.05202): encoder and decoder with bucketed distances instead of positions.

RMSNorm before each sub-layer, no biases, scores without a scale; version 1.1 has gated layers and an output of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, Side, check_sizes
from danlu.models.layout import Form, Layout, Weights
from danlu.nn.config import TransformerConfig
from danlu.nn.embed import TokensConfig
from danlu.nn.heads import VocabularyConfig
from danlu.nn.positions import Buckets

SUITS = "named"  # tasks that name it
DIALS = ("width", "heads", "hidden")
HEAD_DIM = 64
MLPS = {"relu": "relu", "gated-gelu": "geglu_tanh", "gated-silu": "swiglu", "gated-relu": "reglu"}
_FORM: dict[str, Any] = {"norm": "rms", "placement": "pre", "bias": "none", "scale": 1.0}


def _side(ours: str, theirs: str, feed: int) -> dict[str, str]:
    """One stack; `feed` is the number of its MLP among the sub-layers. The distances stand in the first block alone."""
    block, layer = f"{ours}core.blocks.{{n}}", f"{theirs}.block.{{n}}.layer"
    own, across, mlp = f"{layer}.0.SelfAttention", f"{layer}.1.EncDecAttention", f"{layer}.{feed}.DenseReluDense"
    return {
        **{f"{block}.attention.inner.{part}.weight": f"{own}.{part}.weight" for part in "qkvo"},
        f"{block}.attention.norm.weight": f"{layer}.0.layer_norm.weight",
        **({f"{block}.across.inner.{part}.weight": f"{across}.{part}.weight" for part in "qkvo"} if feed == 2 else {}),
        **({f"{block}.across.norm.weight": f"{layer}.1.layer_norm.weight"} if feed == 2 else {}),
        f"{block}.mlp.norm.weight": f"{layer}.{feed}.layer_norm.weight",
        f"{block}.mlp.inner.gate.weight": f"{mlp}.wi_0.weight",
        f"{block}.mlp.inner.gated.weight": f"{mlp}.wi_1.weight",
        f"{block}.mlp.inner.up.weight": f"{mlp}.wi.weight",
        f"{block}.mlp.inner.down.weight": f"{mlp}.wo.weight",
        f"{ours}core.distances.table.weight": f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        f"{ours}core.norm.weight": f"{theirs}.final_layer_norm.weight",
    }


def _gated(state: Weights) -> Weights:
    """Beside a gate, the upward matrix has another name in their files."""
    gates = {name.replace(".gate.", ".up.") for name in state if ".gate." in name}
    return {name.replace(".up.", ".gated.") if name in gates else name: tensor for name, tensor in state.items()}


def _ungated(state: Weights) -> Weights:
    return {name.replace(".gated.", ".up."): tensor for name, tensor in state.items()}


LAYOUT = Layout(
    {"embed.tokens.weight": "shared.weight", **_side("encoder.", "encoder", 1), **_side("", "decoder", 2)},
    "",
    (Form("T5ForConditionalGeneration", VocabularyConfig(), {"head.output.weight": "lm_head.weight"}),),
    ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
    dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), "shared.weight"),
    _gated,
    _ungated,
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = False, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial: width 64 per layer, `depth` layers a side; untied = version 1.1 (gated), tied = version 1.0 (ReLU).

    `sizes` override it: width, heads, head_dim, hidden. Raises ValueError where they do not fit together.
    """
    check_sizes(sizes, ("width", "heads", "head_dim", "hidden"))
    width, head_dim = sizes.get("width", 64 * depth), sizes.get("head_dim", HEAD_DIM)
    heads = sizes.get("heads", max(width // head_dim, 1))
    core = TransformerConfig(
        dim=width, layers=depth, heads=heads, kv_heads=heads, head_dim=head_dim, hidden=sizes.get("hidden", 4 * width),
        mlp="relu" if tied else "geglu_tanh", position=Buckets(), dropout=dropout, attention_dropout=dropout, **_FORM,
    )  # fmt: skip
    return _architecture(core, depth, vocab, tied, context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json; arguments as of `qwen3.to_hf`. The decoder starts from the pad."""
    core, side = architecture.core, architecture.encoder
    buckets = core.position if isinstance(core.position, Buckets) else Buckets()
    return {
        "architectures": [LAYOUT.forms[0].stock],
        "model_type": "t5",
        "vocab_size": architecture.tokens.vocab,
        "d_model": core.dim,
        "d_kv": core.head_dim,
        "d_ff": core.hidden,
        "num_layers": side.core.layers if side else 0,
        "num_decoder_layers": core.layers,
        "num_heads": core.heads,
        "relative_attention_num_buckets": buckets.count,
        "relative_attention_max_distance": buckets.longest,
        "dropout_rate": core.dropout,
        "layer_norm_epsilon": core.norm_eps,
        "feed_forward_proj": next((theirs for theirs, ours in MLPS.items() if ours == core.mlp), core.mlp),
        "tie_word_embeddings": getattr(architecture.head, "tied", False),
        "n_positions": architecture.context,
        "is_encoder_decoder": True,
        "decoder_start_token_id": tokens.get("pad_token_id", 0),
        **tokens,
        "initializer_factor": 1.0,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; raises UserError E320 for what danlu does not carry."""
    LAYOUT.form_named(config)
    feed = config.get("feed_forward_proj", "relu")
    if feed not in MLPS:
        raise foreign.refusal("feed_forward_proj", feed)
    dropout = foreign.number(config, "dropout_rate", 0.1)
    layers, heads = foreign.positive(config, "num_layers", 6), foreign.positive(config, "num_heads", 8)
    buckets = Buckets(
        foreign.positive(config, "relative_attention_num_buckets", 32),
        foreign.positive(config, "relative_attention_max_distance", 128),
    )
    core = TransformerConfig(
        dim=foreign.positive(config, "d_model", 512),
        layers=foreign.positive(config, "num_decoder_layers", layers),
        heads=heads,
        kv_heads=heads,
        head_dim=foreign.positive(config, "d_kv", 64),
        hidden=foreign.positive(config, "d_ff", 2048),
        mlp=MLPS[feed],
        norm_eps=foreign.number(config, "layer_norm_epsilon", 1e-6),
        position=buckets,
        dropout=dropout,
        attention_dropout=dropout,
        **_FORM,
    )
    tied = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True) is not False)
    vocab, context = foreign.positive(config, "vocab_size", 32128), foreign.positive(config, "n_positions", 512)
    return _architecture(core, layers, vocab, bool(tied), context)


def _architecture(core: TransformerConfig, layers: int, vocab: int, tied: bool, context: int) -> Architecture:
    """Both sides from one; a tied output takes the states scaled by 1 / sqrt(width)."""
    encoder = Side(replace(core, layers=layers, mask="full"), TokensConfig(vocab))
    head = VocabularyConfig(tied, scale=core.dim**-0.5 if tied else 1.0)
    return Architecture(replace(core, memory=core.dim), TokensConfig(vocab), head, context, encoder)
