"""The range test of learning rates (Smith 2017, arXiv:1506.01186): one short training, its rate rising step by step."""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from danlu.api.chart import drawn
from danlu.api.fitting import opened
from danlu.messages import text

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained

_SMOOTH = 0.7  # share of the running mean that stays at each step
_WORSE = 4.0  # times the best loss: then it has diverged


class Rates:
    """`lr` and `loss` of each step, and `first`, the loss of its batch with the weights of the start.

    `suggestion` is the rate at which the loss falls fastest. Some batches are harder than others: what counts is how
    far each is below its own first loss, so that small batches tell as much as large ones.
    """

    def __init__(self, lr: Sequence[float], loss: Sequence[float], first: Sequence[float]):
        self.lr, self.loss, self.first = list(lr), list(loss), list(first)

    @property
    def level(self) -> list[float]:
        """The loss of each step, were its batch as hard as the mean."""
        mean = sum(self.first) / len(self.first)
        return [mean + loss - first for loss, first in zip(self.loss, self.first, strict=True)]

    @property
    def smooth(self) -> list[float]:
        """The running mean of the level, without the bias of its beginning."""
        mean, found = 0.0, []
        for step, loss in enumerate(self.level, 1):
            mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
            found.append(mean / (1 - _SMOOTH**step))
        return found

    @property
    def lowest(self) -> float:
        """The rate with the lowest loss: a tenth of it is the other usual choice."""
        return self.lr[self.smooth.index(min(self.smooth))]

    @property
    def suggestion(self) -> float:
        smooth = self.smooth
        slopes = {i: smooth[i + 1] - smooth[i] for i in range(max(smooth.index(min(smooth)), 1))}
        return float(f"{self.lr[min(slopes, key=slopes.__getitem__)]:.1e}")

    def __repr__(self) -> str:
        found = {"lr": f"{self.suggestion:.1e}", "tenth": f"{self.lowest / 10:.1e}", "steps": len(self.lr)}
        return text("api.rates", **found)

    def _repr_html_(self) -> str:
        points = [(math.log10(lr / self.lr[0]), loss) for lr, loss in zip(self.lr, self.level, strict=True)]
        return drawn(points, [], title=repr(self), axis=f"lr = {self.lr[0]:.0e} × 10^x")


def find(
    model: "Pretrained", train: Any, steps: int, span: tuple[float, float], quiet: bool, given: dict[str, Any]
) -> Rates:
    """Run the test on a copy of the model; arguments as of `Pretrained.lr_find`."""
    from danlu.train import plan as plans
    from danlu.train.events import Evaluated
    from danlu.train.loop import Training

    lowest, highest = span
    with opened(model, train, None, quiet, given, "lr_find") as work:
        request = work.request()
        drafted = plans.draft(request, model.net)
        plan = plans.replace(drafted, lr=1.0, steps=steps + 1, dropout=0.0)
        net, start = copy.deepcopy(model.net).train(), copy.deepcopy(model.net).train()
        for each in (net, start):
            plans.prepare(each, plan)
        constant = request.train.model_copy(update={"schedule": "constant", "warmup": 0.0})
        training = Training(model.task, net, constant, plan, work.recipe.seed)
        training.feed.steps = 0  # all rates are tried on whole samples
        rates = [lowest * (highest / lowest) ** (step / max(steps - 1, 1)) for step in range(steps)]
        found: list[tuple[float, float, float]] = []
        training.position.lr_scale = rates[0]
        for event in training.events(request.loader, None):
            assert not isinstance(event, Evaluated)
            if not math.isfinite(event.loss):
                break
            fed = training.feed.step(request.loader, len(found), training.shape)
            found.append((rates[len(found)], event.loss, _mean(model, start, fed)))
            work.view.progress(len(found), steps, f"lr {found[-1][0]:.1e} · loss {event.loss:.3f}")
            if len(found) == steps or event.incidents or event.loss > _WORSE * min(loss for _, loss, _ in found):
                break
            training.position.lr_scale = rates[len(found)]
        result = Rates(*zip(*found, strict=True))
        work.view.line(repr(result))
        return result


@torch.no_grad()
def _mean(model: "Pretrained", net: Any, fed: Any) -> float:
    """The loss of the batches of a step, with the weights of `net`."""
    terms = [model.task.loss(net, batch) for batch in fed.batches]
    return sum(float(value) / max(fed.counts[name], 1.0) for each in terms for name, value in each.items())
