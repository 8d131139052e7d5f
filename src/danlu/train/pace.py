"""How long steps take here, and in which form they are fastest: tried on a copy of the network, and remembered.

Which form, cut and pace such steps had is kept per machine (cost.py): a busy moment changes no weights.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from danlu import device, room
from danlu.quantity import seconds
from danlu.train import compiling, cost, split
from danlu.train.aside import parked
from danlu.train.distributed import Alone
from danlu.train.usual import stack

if TYPE_CHECKING:
    from danlu.tasks.task import Task
    from danlu.train.checkpoint import Position
    from danlu.train.plan import Plan, Request

_MICRO_SECONDS = 3.0  # of one micro-batch, at most: a third of the time in which a training must be gone (stopping.py)
SLACK = 1.04  # the mean step takes longer than the middle one that is measured
ROUNDS, _PATIENCE = 7, 2.0  # steps that are timed for the forecast, and the seconds after which no more are
_POINTS = 30  # of a training, at which the share of the operations is asked for
_HASTE = 0.35  # those seconds where the length of the training does not follow from them
_MEASURED = ("attention", "rows", "accumulate", "seconds_per_step", "memory_mb")  # what a trial decides and finds


def measured(request: Request, net: nn.Module, drafted: Plan) -> Plan:
    """Time real steps in each form of attention and keep the faster, which is remembered for the same steps."""
    forms, timed = [drafted.attention], dict[str, float]()
    several = request.train.attention == "auto" and drafted.attention == "sdpa"
    if several and split.allows(net, replace(drafted, attention="written")):
        forms += ["written"]  # it holds the scores of all pairs
    among = [*forms, *(["flex"] if several and compiling.builds_attention(request, drafted) else [])]
    rounds = ROUNDS if request.train.counted else 2  # else the pace is measured later on

    def pace(plan: Plan) -> float:
        return step_seconds(request, net, plan, rounds)

    def fastest() -> str:
        timed.update({form: pace(replace(drafted, attention=form)) for form in forms})
        timed.update(compiling.flexible(drafted, pace) if "flex" in among else {})
        return min(timed, key=timed.__getitem__)

    plan = replace(drafted, attention=cost.chosen(work(net, drafted), drafted.device, among, fastest))
    return replace(plan, seconds_per_step=(timed.get(plan.attention) or pace(plan)) * SLACK)


def brief(request: Request, net: nn.Module, plan: Plan) -> Plan:
    """Micro-batches that are soon over, where rows can be parted: a signal is heard between two of them."""
    shared = [each for each in split.cuts(request.task, plan) if each is plan or each.rows >= plan.ranks]
    cuts = {str(each.accumulate): each for each in shared}

    def soon() -> str:
        pace = plan.seconds_per_step
        return next((name for name, cut in cuts.items() if pace / cut.accumulate <= _MICRO_SECONDS), list(cuts)[-1])

    least = cuts[cost.chosen(("cut", *work(net, plan)), plan.device, list(cuts), soon)]
    return replace(plan, rows=least.rows, accumulate=least.accumulate)


def step_seconds(request: Request, net: nn.Module, plan: Plan, rounds: int = 2, together: Alone | None = None) -> float:
    """The middle time of a few steps on a copy, after one to warm up; of fewer steps where they are slow."""
    together = together or Alone()
    torch.set_num_threads(plan.threads)
    copied = [copy.deepcopy(net)]  # who tries it takes it, and lets go of it before the weights of the first come back
    with parked(net, request.folder):
        room.give_back()
        times = _times(request, copied.pop(), plan, rounds, together)
        _Trials.held = max(_Trials.held, room.resident())
        room.give_back()
    return statistics.median(times[1:])


def _times(request: Request, net: nn.Module, plan: Plan, rounds: int, together: Alone) -> list[float]:
    """Seconds of steps on a network that is not needed afterwards."""
    from danlu.train.loop import rehearsal
    from danlu.train.plan import prepare

    patience = _HASTE if request.train.counted else min(_PATIENCE, 0.05 * seconds(request.train.budget or "5min"))
    started, times = time.monotonic(), list[float]()
    prepare(net, plan)
    for event in rehearsal(request, net, plan, together).events(request.loader, None):
        times.append(event.seconds)  # type: ignore[union-attr]
        started = time.monotonic() if len(times) == 1 else started  # a program may have been compiled
        if together.any(len(times) > rounds or (len(times) > 1 and time.monotonic() - started > patience)):
            break
    return times


def effort(task: Task, where: str, since: float = 0.0, until: float = 1.0) -> float:
    """The time of the mean step between two points of a training, in that of a step on whole samples.

    On a GPU small samples are not counted on to be faster: launching kernels is what takes time there.
    """
    if where != device.CPU or task.share(since) == 1.0:  # which only grows
        return 1.0
    given = task.given
    points = [since + (until - since) * (k + 0.5) / _POINTS for k in range(_POINTS)]
    return given + (1 - given) * statistics.fmean(map(task.share, points))


def work(net: nn.Module, plan: Plan) -> tuple[object, ...]:
    """What decides how long a step of this plan takes, beside the machine."""
    shapes = [(tuple(each.shape), each.requires_grad) for each in net.parameters()]
    return (stack(net), shapes, plan.rows, plan.accumulate, plan.context, plan.precision, plan.dropout)


class _Trials:
    held = 0.0  # bytes of this process after the steps of the largest of those that `held` watches


def held(trial: Callable[[], Plan]) -> Plan:
    """The plan that a trial of its steps gives, with the most memory that this process held meanwhile.

    A trial holds what the training will: the weights that it copied are set aside. Where the process was larger
    before, what it holds after its last step is taken: until asked, the tuned allocator gives nothing back (allocator).
    """
    _Trials.held, before, plan = 0.0, room.peak(), trial()
    if plan.device != device.CPU:  # what this process holds lies elsewhere
        return plan
    held = room.peak() if room.peak() > before else _Trials.held or room.resident()
    return replace(plan, memory_mb=int(held / 1e6)) if held else plan


# --- what was found before ---


def known(request: Request, net: nn.Module, drafted: Plan) -> Plan | None:
    """The plan with what such steps took here before, where their pace changes nothing but the forecast."""
    found = cost.recalled(_trial(request, net, drafted), drafted.device) if request.train.counted else None
    return replace(drafted, **found) if found else None


def learned(request: Request, net: nn.Module, drafted: Plan, plan: Plan) -> None:
    """Remember what a trial of a drafted plan has found."""
    cost.kept(_trial(request, net, drafted), plan.device, {name: getattr(plan, name) for name in _MEASURED})


def _trial(request: Request, net: nn.Module, plan: Plan) -> tuple[object, ...]:
    """What a trial depends on, beside the machine."""
    forms = (request.train.attention, split.allows(net, replace(plan, attention="written")))
    asked = (forms, plan.optimizer, plan.muon_block, plan.checkpointing, plan.average > 0, plan.ranks)
    return ("pace, tables exact", *work(net, plan), *asked)


def outrun(request: Request, net: nn.Module, plan: Plan, position: Position) -> None:
    """Remember the seconds of a training's steps where the trial's were more: it was made in a busy moment."""
    pace = position.seconds / position.step / effort(request.task, plan.device, 0.0, position.step / plan.steps)
    found = cost.recalled(_trial(request, net, plan), plan.device)
    if found and pace < found["seconds_per_step"]:
        cost.kept(_trial(request, net, plan), plan.device, found | {"seconds_per_step": pace})
