"""From the stack's states to answers.

Shapes: B batch · T time · D width · W width of the output table · V vocabulary · C count of labels
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.dropout import Dropout
from danlu.nn.linear import Linear, evened
from danlu.nn.masks import endings, openings
from danlu.nn.mlp import ACTIVATIONS
from danlu.nn.norm import Norm
from danlu.nn.painting import Pixels, PixelsConfig
from danlu.nn.queries import Queries, QueriesConfig

POOLS = ("first", "last", "mean", "max", "each")
ANSWERS = ("labels", "span", "choice", "replaced", "boxes")
FIRST_SHARPNESS = 2.6592  # ln(1 / 0.07)
_EVEN = 32  # rows that have a label are a multiple: their number differs from batch to batch
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class VocabularyConfig:
    """Logits over the vocabulary."""

    tied: bool = True  # the output table is the embedding's
    bias: str = "none"  # none | all
    transform: str = "none"  # none, or the activation of a dense layer and norm before the table (BERT)
    scale: float = 1.0  # of the states (T5 1.0: dim ** -0.5)
    norm_eps: float = 1e-12


@dataclass(frozen=True)
class LabelConfig:
    """Logits over a few labels, from one vector per row or from each token's."""

    count: int  # of labels; 0 = the pooled vector itself (an embedding)
    pool: str = "first"  # first | last (of the real tokens) | mean | max | each
    hidden: str = "none"  # none, or the activation of a dense layer before: tanh relu gelu
    bias: str = "all"  # none | all
    # labels | span (a start and an end among the tokens) | choice (one logit per candidate) | replaced (per token) |
    # boxes (four sides, and labels)
    answer: str = "labels"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in (("pool", POOLS), ("answer", ANSWERS), ("hidden", ("none", "tanh", *ACTIVATIONS))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")


@dataclass(frozen=True)
class JointConfig:
    """Two answers at once: over the vocabulary, and one label per row (BERT's pretraining)."""

    vocabulary: VocabularyConfig
    label: LabelConfig


@dataclass(frozen=True)
class PairConfig:
    """Texts and images as vectors of one space (CLIP)."""

    width: int  # of that space
    eos: int  # the id whose first occurrence ends a text; -1 = the highest id of each text does (old files)


HeadConfig = VocabularyConfig | LabelConfig | JointConfig | PairConfig | PixelsConfig | QueriesConfig


class Vocabulary(nn.Module):
    """logits = prepare(hidden) · weightᵀ + bias. A tied weight stays the embedding's: it is not a parameter here."""

    def __init__(self, config: VocabularyConfig, dim: int, table: nn.Embedding) -> None:
        super().__init__()
        vocab, width = table.weight.shape
        self.config = config
        self.output = None if config.tied else Linear(width, vocab, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab)) if config.bias == "all" else None
        self.dense = Linear(dim, width) if config.transform != "none" else None
        self.norm = Norm(width, "layer", config.norm_eps) if config.transform != "none" else None
        self.tie(table)

    def tie(self, table: nn.Module) -> None:
        """Use `table` for the output when tied; a tuple hides the module, so that the state holds it once."""
        self._table = (table,)

    @property
    def weight(self) -> Tensor:
        """(V, W), tied or not."""
        weight = (self._table[0] if self.output is None else self.output).weight
        assert isinstance(weight, Tensor)
        return weight

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(B, T, D) unchanged: every token has its own answer."""
        return hidden

    def prepare(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., W): all that comes before the table, for losses that never form all logits."""
        if self.dense is not None and self.norm is not None:
            hidden = self.norm(ACTIVATIONS[self.config.transform](self.dense(hidden)))
        return hidden if self.config.scale == 1.0 else hidden * self.config.scale

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        states = self.prepare(hidden)
        logits = F.linear(states, self.weight) if self.output is None else self.output(states)
        return logits if self.bias is None else logits + self.bias.to(logits.dtype)


class Label(nn.Module):
    """logits = output(act(dense(pool(hidden)))), each part where the config has it."""

    def __init__(self, config: LabelConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dense = Linear(dim, dim) if config.hidden != "none" else None
        self.dropout = Dropout(config.dropout)
        self.output = Linear(dim, config.count, config.bias == "all") if config.count else None

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(B, T, D) -> (N, D) for N segments, or (B, T, D) for "each". Tokens of segment 0 are padding."""
        return hidden if self.config.pool == "each" else pooled(hidden, batch.get("segment_ids"), self.config.pool)

    def prepare(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D): all that comes before the labels."""
        if self.dense is not None:
            states = {"tanh": torch.tanh, **ACTIVATIONS}[self.config.hidden](self.dense(states))
        return self.dropout(states)

    def forward(self, states: Tensor) -> Tensor:
        """Pooled states (N, D) or (B, T, D) -> (..., C)."""
        lowered = states.ndim == 2 and states.dtype == torch.bfloat16  # what oneDNN multiplies
        prepared = self.prepare(evened(states, _EVEN) if lowered else states)
        return (prepared if self.output is None else self.output(prepared))[: len(states)]


class Joint(nn.Module):
    """A head over the vocabulary and one over labels, side by side."""

    def __init__(self, config: JointConfig, dim: int, table: nn.Embedding) -> None:
        super().__init__()
        self.vocabulary, self.label = Vocabulary(config.vocabulary, dim, table), Label(config.label, dim)

    def pool(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> the states of each token, and (B, D) of each row."""
        return hidden, self.label.pool(hidden, batch)

    def forward(self, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, T, V) and (B, C)."""
        return self.vocabulary(states[0]), self.label(states[1])


class Pair(nn.Module):
    """Both sides' states into one space, and how sharply they are compared there."""

    def __init__(self, config: PairConfig, text: int, image: int) -> None:
        super().__init__()
        self.config = config
        self.text, self.image = Linear(text, config.width, bias=False), Linear(image, config.width, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(FIRST_SHARPNESS))

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(B, T, D) -> (B, D): each text's state at its end."""
        ids = batch["input_ids"]
        ends = ids.argmax(1) if self.config.eos < 0 else (ids == self.config.eos).int().argmax(1)
        return hidden[torch.arange(len(ids), device=ids.device), ends]

    def text_vectors(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """States (B, T, D) of ids (B, T) -> (B, W) of length 1."""
        return F.normalize(self.text(self.pool(hidden, {"input_ids": ids})), dim=-1, eps=0.0)

    def image_vectors(self, hidden: Tensor) -> Tensor:
        """States (B, 1 + N, D) -> (B, W) of length 1, from the class token."""
        return F.normalize(self.image(hidden[:, 0]), dim=-1, eps=0.0)

    def compared(self, texts: Tensor, images: Tensor) -> Tensor:
        """Vectors (B, W) each -> (images, texts)."""
        return images @ texts.T * self.sharpness.exp()


def inherit(head: nn.Module, before: nn.Module) -> None:
    """Take over what a head shares with the one it replaces: the layer before labels (BERT's pooler), or all of words'
    and of a decoder of pixels'; of a decoder of boxes all but the classes.

    A table of labels is never taken: other labels are meant.
    """
    for own, known in itertools.product((head, *head.children()), (before, *before.children())):
        if isinstance(own, Label) and isinstance(known, Label) and own.config.hidden == known.config.hidden:
            if own.dense is not None and known.dense is not None:
                own.dense.load_state_dict(known.dense.state_dict())
        elif isinstance(own, Queries) and isinstance(known, Queries) and own.asks_as(known):
            own.adopt(known)
        elif _alike(own, known):
            own.load_state_dict(known.state_dict())


def _alike(own: nn.Module, known: nn.Module) -> bool:
    """Whether they are heads over words of one form, or paint pixels by weights of the same shapes."""
    if isinstance(own, Vocabulary) and isinstance(known, Vocabulary):
        return own.config == known.config
    return isinstance(own, Pixels) and isinstance(known, Pixels) and own.shapes == known.shapes


def pooled(hidden: Tensor, segments: Tensor | None, way: str) -> Tensor:
    """(B, T, D) -> (N, D): the first or last token's state of each of N segments, or mean, sum or maximum over all.

    Segments stand in order of rows and places; a row whose tokens all have one number is one segment.
    """
    if segments is None:
        segments = torch.ones_like(hidden[..., 0], dtype=torch.long)
    if way in ("first", "last"):
        return hidden[openings(segments) if way == "first" else endings(segments)]
    real, number = segments > 0, openings(segments).flatten().cumsum(0).view_as(segments) - 1
    if way == "max":
        places = number[real][:, None].expand(-1, hidden.shape[-1])
        least = hidden.new_full((int(number[-1, -1]) + 1, hidden.shape[-1]), -torch.inf)
        return least.scatter_reduce(0, places, hidden[real], "amax")
    sums = hidden.new_zeros(int(number[-1, -1]) + 1, hidden.shape[-1]).index_add_(0, number[real], hidden[real])
    return sums if way == "sum" else sums / torch.bincount(number[real], minlength=len(sums))[:, None]
