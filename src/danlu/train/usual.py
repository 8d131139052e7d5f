"""What a training does where its recipe leaves it open: its rate, its decay, its dropout, how it computes attention."""

from typing import TYPE_CHECKING, Any

from torch import nn

from danlu.messages import text
from danlu.nn.attention import Attention

if TYPE_CHECKING:
    from danlu.train.plan import Plan, Request
    from danlu.train.session import Watcher

_LR = {  # (to pretrain, to tune)
    "muon": (0.03, 0.005),
    "adamw": (2e-3, 1e-3),
    "adam": (2e-3, 1e-3),
    "sgd": (0.1, 0.02),
    "rmsprop": (1e-3, 2e-4),
}
_DECAY = (0.05, 0.01)
_STEPS = 600  # from which adapters have enough of them (decision 0034)
_STEEP = 4  # times the usual rate: at 2.5 times it learned as well, at 6 times it did not (decision 0016)
_KNOWING = 0.06  # over the width: the rate at which all of a pretrained network learns to judge (decision 0016)


def rate(request: "Request", net: nn.Module, optimizer: str) -> float:
    """The peak rate, where the recipe leaves it open: at what adapters need, all of a network that judges forgets."""
    pretrain, tune = _LR[optimizer]
    if request.pretraining:
        return tune if _cautious(net) else pretrain
    whole = request.task.judges and optimizer in ("adam", "adamw") and _whole(net) and stack(net)
    return min(tune, float(f"{_KNOWING / stack(net).dim:.1e}")) if whole else tune


def told(request: "Request", net: nn.Module, plan: "Plan", view: "Watcher") -> None:
    """Say where the recipe tunes all of a pretrained network at a rate at which it forgets: one for random weights."""
    usual = rate(request, net, plan.optimizer)
    if not request.pretraining and request.task.judges and _whole(net) and stack(net) and plan.lr > _STEEP * usual:
        view.line(text("train.steep", lr=f"{plan.lr:.3g}", usual=f"{usual:.3g}"))


def _cautious(net: nn.Module) -> bool:
    """Whether at the higher rate it learns no more than how often tokens are: an encoder-decoder, or norms behind sums
    (decision 0017)."""
    config = stack(net)
    return config is not None and bool(config.memory or config.placement == "post")


def _whole(net: nn.Module) -> bool:
    """Whether more than half of the weights are trained."""
    total = sum(p.numel() for p in net.parameters())
    return sum(p.numel() for p in net.parameters() if p.requires_grad) > total / 2


def tokens(request: "Request", net: nn.Module) -> int:
    """Tokens of a step: those of the task, and down to a quarter where few weights learn to judge in few steps.

    What adapters lose beside all weights grows with the batch (decision 0034).
    """
    many = request.task.step_tokens
    together = request.task.coupled != "none"  # the more, the better
    if request.pretraining or together or not request.task.judges or request.train.epochs is None or _whole(net):
        return many
    wanted = request.train.epochs * len(request.loader) * request.loader.context / _STEPS
    return next((few for few in (many, many // 2) if few <= wanted), many // 4)


def decay(request: "Request") -> float:
    """The decoupled decay of the matrices."""
    return _DECAY[0 if request.pretraining else 1]


def dropout(epochs: float) -> float:
    """None where rows are seen at most twice, up to 0.2 where they are seen often (Srivastava et al. 2014)."""
    return 0.0 if epochs <= 2 else 0.1 if epochs <= 8 else 0.2


def attention(net: nn.Module) -> str:
    """The form of attention to begin with: "written" where all layers drop shares, which the fused form cannot."""
    layers = [module for module in net.modules() if isinstance(module, Attention)]
    return "written" if layers and all(layer.dropout.p for layer in layers) else "sdpa"


def stack(net: nn.Module) -> Any:
    """The config of the network's Transformer, or None."""
    return getattr(getattr(net, "core", None), "config", None)
