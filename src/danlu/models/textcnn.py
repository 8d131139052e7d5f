"""A convolutional network for the classes of texts: phrases, the most of each in a text, a label (1408.5882).

No stock family has it: its folder is danlu's own, under the names of its tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.models import foreign
from danlu.models.architecture import Architecture, check_sizes
from danlu.models.convolutional import stackless
from danlu.models.encoder import both
from danlu.models.layout import Form, Layout
from danlu.nn.heads import LabelConfig
from danlu.nn.phrases import PhrasesConfig

EMBED = PhrasesConfig
STOCK = False
SUITS = "named"  # tasks that name it
TOKENIZER = "wordpiece"
DEPTH = 5  # where the recipe leaves it open
DIALS = ("width", "hidden")
_PHRASE = "embed.phrases.{n}"
LAYOUT = Layout(
    {name: name for name in ("embed.tokens.weight", f"{_PHRASE}.weight", "embed.bias")},
    "",
    (Form("TextCnn", LabelConfig(1, "max"), both({"head.output": "head.output"})),),
)


def preset(
    vocab: int, context: int, depth: int, *, tied: bool = True, dropout: float = 0.0, **sizes: int
) -> Architecture:
    """One dial: phrases of 1 to so many tokens, 128 channels for each length; vectors of tokens are 256 wide.

    `sizes` override it: width (of the tokens' vectors), hidden (channels). Raises ValueError for others.
    """
    foreign.always_tied(tied)
    check_sizes(sizes, DIALS)
    lengths = tuple(range(1, depth + 1))
    embed = PhrasesConfig(vocab, sizes.get("width", 256), lengths=lengths, channels=sizes.get("hidden", 128))
    return stackless(embed, dropout, LabelConfig(1, "max", dropout=dropout), context)


def to_hf(architecture: Architecture, tokens: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """What from_hf reads again."""
    form, embed = LAYOUT.form_of(architecture.head), architecture.embed
    assert form is not None and isinstance(embed, PhrasesConfig)
    return {
        **form.write(architecture.head),
        "model_type": "textcnn",
        "vocab_size": embed.vocab,
        "max_position_embeddings": architecture.context,
        "hidden_size": embed.width,
        "num_channels": embed.channels,
        "longest_phrase": embed.depth,
        "dropout": architecture.core.dropout,
        **tokens,
        "torch_dtype": dtype,
    }


def from_hf(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json that to_hf wrote."""
    vocab, context, width, channels = (
        foreign.positive(config, name, 1)
        for name in ("vocab_size", "max_position_embeddings", "hidden_size", "num_channels")
    )
    lengths = tuple(range(1, foreign.positive(config, "longest_phrase", 5) + 1))
    embed = PhrasesConfig(vocab, width, lengths=lengths, channels=channels)
    dropout = foreign.number(config, "dropout", 0.0)
    head = LAYOUT.form_named(config).read(config, dropout)
    assert isinstance(head, LabelConfig)
    return stackless(embed, dropout, head, context)
