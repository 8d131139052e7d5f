"""Whether compiling the blocks pays back within a training: tried on a copy, decided before step 0, kept in the plan.

Measured (docs/decisions/0012): a program costs 12 to 23 s on a CPU and makes steps 1.1 times as fast, so that short
trainings never try. What was tried is not lost: the training's own blocks run the same program.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import nn

from danlu import device, ranks
from danlu.errors import UserError
from danlu.messages import text
from danlu.train import cost

if TYPE_CHECKING:
    from danlu.train.plan import Plan, Request
    from danlu.train.session import Watcher

NEVER = -1
_WIDE = 512  # tokens of a row from which blocks of pairs that nobody sees are many
_LONG, _LONG_ON_GPU = 900.0, 300.0  # seconds of training from which a trial is worth its time


def available(where: str) -> bool:
    """Whether programs can be built for a device: by a C++ compiler for processors, by Triton for CUDA."""
    if where.startswith("cuda"):
        return find_spec("triton") is not None
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return where == device.CPU and shutil.which(os.environ.get("CXX") or usual) is not None


def check(request: "Request") -> None:
    """Raise UserError E129 where it is asked for and several ranks train; E149, flex attention without a GPU."""
    if request.train.attention == "flex" and not (request.device.startswith("cuda") and available(request.device)):
        raise UserError("E149", device=request.device)
    if ranks.count() > 1 and request.compile is True:
        raise UserError("E129", count=ranks.count())


def decided(request: "Request", plan: "Plan", work: object, pace: Callable[["Plan"], float]) -> "Plan":
    """The plan with the step from which its blocks run compiled; the very one where that is not tried.

    `pace` measures the seconds of a plan's steps, which follow from `work`: for the same one the choice is remembered,
    where the length does not follow from a clock.
    """
    wanted = request.compile is True or (request.compile == "auto" and ranks.count() == 1)
    if not wanted or not available(plan.device):
        return plan
    made = plan

    def choose() -> str:
        nonlocal made
        made = _compiled(request, plan, pace) if request.compile is True or _long(plan) else plan
        return "eager" if made.compiled_from == NEVER else "compiled"

    asked = ("compile", work, plan.steps, request.compile)
    again = request.train.counted
    form = cost.chosen(asked, plan.device, ["eager", "compiled"], choose) if again else choose()
    if form == "compiled" and made is plan:
        return _compiled(replace(request, compile=True), plan, pace)
    return made


def _long(plan: "Plan") -> bool:
    """Whether a trial is worth its time."""
    return plan.seconds >= (_LONG if plan.device == device.CPU else _LONG_ON_GPU)


def _compiled(request: "Request", plan: "Plan", pace: Callable[["Plan"], float]) -> "Plan":
    """The plan after a trial of its compiled steps: with them where they are wished for, or pay back."""
    started = time.monotonic()
    shorter = _tried(plan, pace)
    spent = time.monotonic() - started
    gain = (plan.seconds_per_step - (shorter or plan.seconds_per_step)) * plan.steps
    if shorter is None or (request.compile == "auto" and gain < spent):
        return replace(plan)
    return replace(plan, compiled_from=0, seconds_per_step=shorter)


def _tried(plan: "Plan", pace: Callable[["Plan"], float]) -> float | None:
    """Seconds of a compiled step; None where it cannot be compiled."""
    try:
        return pace(replace(plan, compiled_from=0))
    except RuntimeError:  # the compiler's, whatever it is; the step itself has run before
        return None


def builds_attention(request: "Request", plan: "Plan") -> bool:
    """Whether flex attention is worth a trial: where several documents share long rows on a GPU."""
    several = any(len(group) > 1 for group in getattr(request.loader, "groups", ()))
    return several and plan.context >= _WIDE and plan.device.startswith("cuda") and available(plan.device)


def flexible(plan: "Plan", pace: Callable[["Plan"], float]) -> dict[str, float]:
    """{"flex": seconds of a step with it}; nothing where this GPU cannot build it."""
    try:
        return {"flex": pace(replace(plan, attention="flex"))}
    except RuntimeError:
        return {}


def told(request: "Request", plan: "Plan", view: "Watcher") -> None:
    """Say once what became of the wish to compile."""
    if plan.compiled_from != NEVER:
        view.line(text("train.compiled"))
    elif request.compile is True:
        view.line(text("train.no_compiler"))


def kept(plan: "Plan", view: "Watcher") -> "Plan":
    """The plan of a training begun earlier; eager from here on where what compiled it is gone."""
    if plan.compiled_from == NEVER or available(plan.device):
        return plan
    view.line(text("train.no_compiler"))
    return replace(plan, compiled_from=NEVER)


def switch(net: nn.Module, on: bool) -> None:
    """Let the blocks of every stack run compiled in training, or eagerly."""
    for module in net.modules():
        if hasattr(module, "compiled"):
            module.compiled = on  # type: ignore[assignment]
