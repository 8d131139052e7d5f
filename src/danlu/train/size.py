"""How big a model should be: the one dial, and what `depth = "auto"` makes of the budget and the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from danlu import catalogue, device, models
from danlu.config import DIALS, ModelSection, Train
from danlu.models.architecture import Architecture, empty
from danlu.quantity import count, seconds
from danlu.train import cost, sides, trial

if TYPE_CHECKING:
    from danlu.data.loader import Loader

_DEPTHS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
_TOKENS_PER_WEIGHT = 1.0  # trained tokens per weight at the best depth of short budgets (docs/decisions/0008)
_OF_LABELS = 4  # the deepest where only answers are learned, of which a row has few
_EPOCHS = 8.0  # looks at the same token that still teach something


@dataclass(frozen=True)
class Learned:
    """What a model is to learn, where that decides how much of its stacks a token passes."""

    task: str = "language_modeling"
    options: Mapping[str, Any] = field(default_factory=dict)


def architecture(
    section: ModelSection, train: Train, vocab: int, tokens: int, where: str = device.CPU,
    seen: Mapping[str, int] = MappingProxyType({}), learned: Learned = Learned(),
) -> Architecture:  # fmt: skip
    """The architecture of a recipe: `tokens` are those of the training rows; `seen` is what else of them it depends on.

    A form that states its DEPTH has that one, whatever the budget.
    """
    depth = getattr(models.family(section.arch), "DEPTH", 0) if section.depth == "auto" else section.depth
    return _shape(section, vocab, depth or depth_for(section, train, vocab, tokens, where, learned), seen)


def _shape(
    section: ModelSection, vocab: int, depth: int, seen: Mapping[str, int] = MappingProxyType({})
) -> Architecture:
    given = {name: getattr(section, name) for name in DIALS if getattr(section, name) is not None}
    given |= {"tied": section.tied} if section.tied != "auto" else {}
    return models.preset(section.arch, vocab, section.context, depth, **given, **seen)


def depth_for(
    section: ModelSection, train: Train, vocab: int, tokens: int, where: str = device.CPU, learned: Learned = Learned()
) -> int:
    """The deepest model that the length of the training can feed."""
    best, judges = _DEPTHS[0], catalogue.stated(learned.task, "judges")
    for depth in _DEPTHS[: _DEPTHS.index(_OF_LABELS) + 1] if judges else _DEPTHS:
        weights, per_token = _cost(section, vocab, depth, learned)
        fed = min(_trained_tokens(train, per_token, tokens, where), _EPOCHS * tokens)
        if fed >= _TOKENS_PER_WEIGHT * weights:
            best = depth
    return best


def _cost(section: ModelSection, vocab: int, depth: int, learned: Learned) -> tuple[int, float]:
    """The weights of a model of this depth, and the operations of a trained token of text."""
    if not models.preset(section.arch, vocab, section.context, depth).core.memory:
        weights, width = _weights(section, vocab, depth), section.width or 64 * depth
        return weights, cost.flops_per_token(weights, depth, width, section.context)
    shape = _shape(section, vocab, depth)
    net, rows = empty(shape), cast("Loader", trial.Synthetic(section.context, vocab, section.context))
    task, _ = trial.stands_in(learned.task, shape, vocab, section.context, learned.options)
    operations = sides.flops(net, **sides.lengths(task, rows, net))
    return sum(p.numel() for p in net.parameters()), operations / section.context


def _weights(section: ModelSection, vocab: int, depth: int) -> int:
    width = section.width or 64 * depth
    return 12 * depth * width**2 + vocab * width


def _trained_tokens(train: Train, per_token: float, tokens: int, where: str) -> float:
    """Tokens that a training of this length takes in, each of which costs so many operations."""
    if train.epochs is not None:
        return train.epochs * tokens
    if train.tokens is not None:
        return float(count(train.tokens))
    if train.steps is not None:
        return train.steps * (2048.0 if train.batch_tokens == "auto" else train.batch_tokens)
    precision = cost.faster_precision(where) if train.precision == "auto" else train.precision
    rate = cost.peak(precision, where) * trial.share(precision, where)
    return seconds(train.budget or "5min") * rate / per_token
