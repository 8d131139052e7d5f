"""How big a model should be: the one dial, and what `depth = "auto"` makes of the budget and the data."""

from danlu import models
from danlu.config import ModelSection, Train, count, seconds
from danlu.models.architecture import Architecture
from danlu.train import cost

_SHARE_OF_PEAK = 0.15  # of the matrix-product rate that a small training step reaches, measured on CPUs
_DEPTHS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
_TOKENS_PER_WEIGHT = 0.3  # trained tokens per weight at the best depth of short budgets (docs: sizes by budget)
_EPOCHS = 8.0  # looks at the same token that still teach something


def architecture(section: ModelSection, train: Train, vocab: int, tokens: int) -> Architecture:
    """The architecture of a recipe: `tokens` are those of the training rows."""
    given = {
        name: getattr(section, name)
        for name in ("width", "heads", "kv_heads", "hidden")
        if getattr(section, name) is not None
    }
    depth = depth_for(section, train, vocab, tokens) if section.depth == "auto" else section.depth
    given |= {"tied": section.tied, "dropout": section.dropout}
    return models.preset(section.arch, vocab, section.context, depth, **given)


def depth_for(section: ModelSection, train: Train, vocab: int, tokens: int) -> int:
    """The deepest model that the length of the training can feed."""
    best = _DEPTHS[0]
    for depth in _DEPTHS:
        width = section.width or 64 * depth
        weights = 12 * depth * width**2 + vocab * width
        if _trained_tokens(train, weights, tokens, section.context, depth, width) >= _TOKENS_PER_WEIGHT * weights:
            best = depth
    return best


def _trained_tokens(train: Train, weights: int, tokens: int, context: int, depth: int, width: int) -> float:
    if train.tokens is not None:
        length = float(count(train.tokens))
    elif train.epochs is not None:
        length = train.epochs * tokens
    elif train.steps is not None:
        length = train.steps * (2048.0 if train.batch_tokens == "auto" else train.batch_tokens)
    else:
        precision = cost.faster_precision() if train.precision == "auto" else train.precision
        rate = cost.peak(precision) * _SHARE_OF_PEAK
        length = seconds(train.budget or "5min") * rate / cost.flops_per_token(weights, depth, width, context)
    return min(length, _EPOCHS * tokens)
