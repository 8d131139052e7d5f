"""How big a model should be: the one dial, and what `depth = "auto"` makes of the budget and the data."""

from collections.abc import Mapping
from types import MappingProxyType

from danlu import device, models
from danlu.config import ModelSection, Train
from danlu.models.architecture import Architecture
from danlu.quantity import count, seconds
from danlu.train import cost, trial

_DEPTHS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
_TOKENS_PER_WEIGHT = 1.0  # trained tokens per weight at the best depth of short budgets (docs/decisions/0008)
_EPOCHS = 8.0  # looks at the same token that still teach something


def architecture(
    section: ModelSection,
    train: Train,
    vocab: int,
    tokens: int,
    where: str = device.CPU,
    seen: Mapping[str, int] = MappingProxyType({}),
) -> Architecture:
    """The architecture of a recipe: `tokens` are those of the training rows; `seen` is what else of them it depends on.

    A form that states its DEPTH has that one, whatever the budget.
    """
    names = ("width", "heads", "kv_heads", "hidden", "patch")
    given = {name: getattr(section, name) for name in names if getattr(section, name) is not None}
    given |= {"tied": section.tied} if section.tied != "auto" else {}
    depth = getattr(models.family(section.arch), "DEPTH", 0) if section.depth == "auto" else section.depth
    depth = depth or depth_for(section, train, vocab, tokens, where)
    return models.preset(section.arch, vocab, section.context, depth, **given, **seen)


def depth_for(section: ModelSection, train: Train, vocab: int, tokens: int, where: str = device.CPU) -> int:
    """The deepest model that the length of the training can feed."""
    best = _DEPTHS[0]
    for depth in _DEPTHS:
        fed = min(_trained_tokens(section, train, vocab, depth, tokens, where), _EPOCHS * tokens)
        if fed >= _TOKENS_PER_WEIGHT * _weights(section, vocab, depth):
            best = depth
    return best


def _weights(section: ModelSection, vocab: int, depth: int) -> int:
    width = section.width or 64 * depth
    return 12 * depth * width**2 + vocab * width


def _trained_tokens(section: ModelSection, train: Train, vocab: int, depth: int, tokens: int, where: str) -> float:
    """Tokens that a training of this length takes in."""
    if train.epochs is not None:
        return train.epochs * tokens
    if train.tokens is not None:
        return float(count(train.tokens))
    if train.steps is not None:
        return train.steps * (2048.0 if train.batch_tokens == "auto" else train.batch_tokens)
    precision = cost.faster_precision(where) if train.precision == "auto" else train.precision
    rate = cost.peak(precision, where) * trial.share(precision, where)
    width = section.width or 64 * depth
    per_token = cost.flops_per_token(_weights(section, vocab, depth), depth, width, section.context)
    return seconds(train.budget or "5min") * rate / per_token
