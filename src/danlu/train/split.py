"""Steps cut finer until they fit into memory: before the first one, and where memory runs out in one.

Nothing here changes what is learned: a step cut into more micro-batches has the same gradient up to rounding.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from danlu import device, ranks, room
from danlu.errors import UserError
from danlu.messages import text
from danlu.train import memory, probe
from danlu.train.aside import parked

if TYPE_CHECKING:
    from danlu.tasks.task import Task
    from danlu.train.plan import Plan, Request

_SURE = 0.25  # share of the room below which a forecast is not checked by a probe
_EFFICIENT = 1024  # tokens of a micro-batch below which computing activations again costs less than a finer cut
_MICRO_TOKENS = 8192  # tokens of one micro-batch: beyond it activations leave the caches and nothing is gained
_GPU_MICRO_TOKENS = 65_536  # a GPU has no such caches, and gains until its memory is full
_FULL = 0.9  # share of the room that a training may take; page cache and other processes need some


def available(plan: "Plan") -> float:
    """Bytes that a training may hold: on its GPU, or on this machine beside the other ranks."""
    return room.on_gpu(plan.device) if plan.device.startswith("cuda") else room.limit() / ranks.here()


def fitted(request: "Request", net: nn.Module, plan: "Plan") -> "Plan":
    """The first of the plan's forms that fits: by the forecast, and by a probe where it could matter.

    Raises:
        UserError: E403, not one row fits.
    """
    free = available(plan)
    for form in _forms(request, net, plan):
        if fits(request, net, form, free):
            return form
    raise refusal(net, form)


def _forms(request: "Request", net: nn.Module, plan: "Plan") -> Iterator["Plan"]:
    """A plan and its finer cuts; where they get inefficient and the recipe lets us, with activations computed again."""
    again = request.train.recompute == "auto" and plan.checkpointing == "none" and _has_blocks(net)
    for form in cuts(request.task, plan):
        if again and form is not plan and form.rows_here * form.context < _EFFICIENT:
            break
        yield form
    if again:
        yield from cuts(request.task, replace(plan, checkpointing="blocks"))


def cuts(task: "Task", plan: "Plan") -> Iterator["Plan"]:
    """A plan, and its ever finer cuts into micro-batches of one size."""
    wanted, parts = plan.accumulate, finer(task, plan.rows, plan.accumulate)
    yield plan
    while parts is not None:
        plan = replace(plan, rows=plan.rows * plan.accumulate // parts, accumulate=parts, unsplit=wanted)
        yield plan
        parts = finer(task, plan.rows, plan.accumulate)


def _has_blocks(net: nn.Module) -> bool:
    return any(hasattr(module, "checkpointing") for module in net.modules())


def allows(net: nn.Module, plan: "Plan") -> bool:
    """Whether a plan is forecast to fit now."""
    return memory.forecast(net, plan) <= _FULL * available(plan)


def fits(request: "Request", net: nn.Module, plan: "Plan", free: float) -> bool:
    """Whether a step of this plan takes at most nine tenths of `free` bytes."""
    needed = memory.forecast(net, plan)
    if _SURE * free < needed < 2 * free and plan.parallel == "ddp":  # else one rank alone would need it all
        measured = _probed(request, net, plan)
        needed = needed if measured is None else measured
    return needed <= _FULL * free


def _probed(request: "Request", net: nn.Module, plan: "Plan") -> float | None:
    if plan.device.startswith("cuda"):
        return probe.peak_on_gpu(lambda: one_step(request, net, plan), plan.device)
    return probe.peak(lambda: one_step(request, net, plan))


def one_step(request: "Request", net: nn.Module, plan: "Plan") -> None:
    """The first step of a plan, on a copy."""
    from danlu.train.loop import rehearsal
    from danlu.train.plan import prepare

    copied = copy.deepcopy(net)
    prepare(copied, plan)
    short = replace(plan, accumulate=min(2, plan.accumulate))
    with parked(net, request.folder):
        next(rehearsal(request, copied, short).events(request.loader, None))


def parts(request: "Request", rows: int, sharing: int) -> int:
    """Micro-batches of a step of so many packed rows, which so many devices share: of one size, the same batch.

    Raises:
        UserError: E147, the samples see each other, and each device would see its own share alone.
    """
    together = request.task.coupled != "none"
    if together and sharing > 1:
        raise UserError("E147", devices=sharing)
    most = (_MICRO_TOKENS if request.device == device.CPU else _GPU_MICRO_TOKENS) * sharing
    usual = 1 if together else math.ceil(rows * request.loader.context / most)
    wanted = usual if request.train.accumulate == "auto" else request.train.accumulate
    return next(n for n in range(min(wanted, rows), rows + 1) if rows % n == 0)


def finer(task: "Task", rows: int, accumulate: int) -> int | None:
    """Micro-batches of the next finer cut of a step into equal parts; None where there is none."""
    if task.coupled == "batch":  # its samples see each other
        return None
    total = rows * accumulate
    return next((n for n in range(2 * accumulate, total + 1) if total % n == 0), None)


def refusal(net: nn.Module, plan: "Plan") -> UserError:
    """E403 with what takes the memory, largest first."""
    needed = memory.shares(net, replace(plan, rows=plan.ranks, accumulate=plan.rows * plan.accumulate // plan.ranks))
    largest = sorted(needed.items(), key=lambda item: -item[1])
    evidence = [f"{_mb(size):>10} MB  {text(f'memory.{name}')}" for name, size in largest]
    total = sum(needed.values())
    return UserError(
        "E403", needed=_mb(total), free=_mb(_FULL * available(plan)), context=plan.context, evidence=evidence
    )


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}"


def release() -> None:
    """Give back what the allocator keeps on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
