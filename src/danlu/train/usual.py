"""What a training does where its recipe leaves it open: its rate, its decay, its dropout, how it computes attention."""

from typing import TYPE_CHECKING, Any

from torch import nn

from danlu.adapt.graft import GROWN
from danlu.messages import text
from danlu.nn.attention import Attention
from danlu.nn.stems import Patches
from danlu.tasks.task import Task
from danlu.train import memory

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
_BLOCKS = (0, 512, 256, 128)  # rows that Muon may orthogonalise together, 0: a whole matrix (decision 0040)
_MUCH = 0.2  # of the operations of a step that it may take, but in the smallest blocks
_MANY = 10  # times them that whole matrices may take, or it is left: 64 rows through wide layers take 30
_DECAY = (0.05, 0.01)
_DECAY_OF_SGD = 5e-4
_STEPS, _STEPS_BESIDE = 150, 600  # from which a network, and adapters beside it, have enough of them (decision 0034)
_PREFIXES = 10  # times the rate of other adapters: 5e-3 to 1e-2 in P-tuning v2 (2110.07602)
_STEEP = 4  # times the usual rate: at 2.5 times it learned as well, at 6 times it did not (decision 0016)
_KNOWING = 0.06  # over the width: the rate at which all of a pretrained network learns to judge (decision 0016)


def optimizer(request: "Request", net: nn.Module, plan: "Plan") -> str:
    """Muon to pretrain, unless its own products would cost many times the step's: of few rows through wide layers."""
    if request.begins != "random" or request.parallel == "tensor":
        return "adamw"
    return "muon" if _orthogonalising(net, plan, 0) <= _MANY else "adamw"


def block(net: nn.Module, plan: "Plan") -> int:
    """The most rows that Muon orthogonalises together where that is a small part of a step's work."""
    return next((each for each in _BLOCKS if _orthogonalising(net, plan, each) <= _MUCH), _BLOCKS[-1])


def _orthogonalising(net: nn.Module, plan: "Plan", block: int) -> float:
    """The operations of Muon in blocks of so many rows, over those of a step."""
    from danlu.train.optim import orthogonalising
    from danlu.train.plan import step_gflop

    own = orthogonalising({name: p for name, p in net.named_parameters() if p.requires_grad}, block)
    return own / (1e9 * step_gflop(net, plan))


def rate(request: "Request", net: nn.Module, optimizer: str) -> float:
    """The peak rate, where the recipe leaves it open: at what adapters need, all of a network that judges forgets."""
    pretrain, tune = _LR[optimizer]
    if request.begins == "random":
        return tune if _cautious(request, net) else pretrain
    if any(name.rpartition(".")[2].startswith("prefix_") for name, _ in net.named_parameters()):
        return _PREFIXES * tune
    return min(tune, float(f"{_KNOWING / stack(net).dim:.1e}")) if _forgets(request, net, optimizer) else tune


def told(request: "Request", net: nn.Module, plan: "Plan", view: "Watcher") -> None:
    """Say where the recipe tunes a Transformer itself at a rate at which it may forget: one for random weights."""
    known = rate(request, net, plan.optimizer)
    tuned = request.begins != "random" and _forgets(request, net, plan.optimizer) and stack(net).layers
    if tuned and plan.lr > _STEEP * known:
        view.line(text("train.steep", lr=f"{plan.lr:.3g}", usual=f"{known:.3g}"))


def _forgets(request: "Request", net: nn.Module, optimizer: str) -> bool:
    """Whether Adam tunes a network itself that judges, or that was pretrained elsewhere (decision 0016)."""
    meant = request.task.judges or request.begins == "pretrained"
    return meant and optimizer in ("adam", "adamw") and _itself(net) and stack(net) is not None


def _cautious(request: "Request", net: nn.Module) -> bool:
    """Whether it learns little at the higher rate: an encoder-decoder, layers with norms behind their sums that learn
    from texts alone (decision 0017), or what begins with the squares of a picture (decision 0036)."""
    config = stack(net)
    if isinstance(getattr(net, "embed", None), Patches):
        return True
    behind = config is not None and config.layers and config.placement == "post" and not request.task.judges
    return bool(behind or (config is not None and config.memory))


def _itself(net: nn.Module) -> bool:
    """Whether matrices of the layers are trained, and not only what stands beside them, a head, or biases."""
    parts = [(name.rpartition("."), p) for name, p in net.named_parameters() if p.ndim > 1]
    inner = [p for (home, _, name), p in parts if "blocks." in home and not name.startswith(GROWN)]
    trained, total = memory.counted(net)
    return any(p.requires_grad for p in inner) if inner else trained > total / 2


def tokens(request: "Request", net: nn.Module, sharing: int) -> int:
    """Tokens of a step: those of the task, and fewer where texts to be judged are so few that there would be few steps.

    Adapters want more steps: what they lose beside all weights grows with the batch (decision 0034). Each of the
    devices that share a step has a row.
    """
    many, loader, epochs = request.task.step_tokens, request.loader, request.train.epochs
    texts = many == Task.step_tokens and request.task.coupled == "none"  # of pairs told apart: the more, the better
    if not texts or not request.task.judges or epochs is None:
        return many
    steps, least = (_STEPS, many // 8) if _itself(net) else (_STEPS_BESIDE, many // 4)
    wanted = epochs * len(loader) * loader.context / steps
    few = next((each for each in (many, many // 2, many // 4) if each <= wanted), least)
    return max(few, min(many, sharing * loader.context))


def decay(request: "Request", optimizer: str) -> float:
    """The decoupled decay of the matrices; of SGD that which is usual beside its larger rate (He 2016: 1e-4)."""
    return _DECAY_OF_SGD if optimizer == "sgd" else _DECAY[0 if request.begins == "random" else 1]


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
