"""Resolve, then run: everything that is measured is decided once, before step 0, and written to plan.toml.

From there nothing reads a clock: the same plan, machine, torch and thread count give the same weights.
"""

import math
import time
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import nn

from danlu import device, files, ranks
from danlu.config import Begins, Train
from danlu.data.loader import Loader
from danlu.errors import UserError
from danlu.nn import fp8
from danlu.nn.attention import Attention
from danlu.nn.dropout import Dropout
from danlu.quantity import count, seconds
from danlu.tasks.task import Task
from danlu.train import compiling, cost, memory, pace, precision, schedule, sides, split, usual
from danlu.train.distributed import Alone
from danlu.train.usual import stack

PLAN = "plan.toml"
EVALUATIONS = (3, 10)  # looks at the validation rows in one training, at least and at most, where the recipe is silent
_LOOKING = 0.05  # of a step on whole samples: evaluation adds about a twentieth
_PARTED_SHARE = 0.1  # of the peak, guessed for a step until all ranks have tried it together
_NEW = ("source", "target", "average", "muon_block")  # what plans of an earlier version do not say
_WRITE_RATE = 200e6  # bytes per second that a synced write is assumed to reach


@dataclass(frozen=True)
class Plan:
    """The resolved form of one training. What is 0 is not decided yet."""

    depth: int  # of the network; chosen before anything else where the recipe says "auto"
    rows: int  # packed rows of one micro-batch, on all ranks together
    accumulate: int
    context: int
    optimizer: str
    lr: float
    weight_decay: float
    precision: str
    threads: int
    dropout: float = 0.0
    attention: str = "sdpa"
    compiled_from: int = compiling.NEVER  # the first step in which blocks run as compiled programs
    checkpointing: str = "none"  # blocks: their insides are computed again in backward, not kept
    steps: int = 0
    evaluate_every: int = 1
    evaluate_rows: int = 0
    save_every: int = 1
    stable_step: int = 0  # the last step before the decay: its checkpoint can be extended
    tokens: int = 0  # of the whole training
    seconds_per_step: float = 0.0  # measured
    seconds: float = 0.0  # forecast of the whole, evaluation and saving included
    memory_mb: int = 0  # forecast of the process
    peak_gflops: float = 0.0  # of a matrix product in this precision
    step_gflop: float = 0.0
    ranks: int = 1  # processes that share the rows of each micro-batch
    parallel: str = "ddp"  # what the ranks hold: "ddp" all weights each, "fsdp" their rows, "tensor" heads
    device: str = device.CPU  # where it is computed
    device_name: str = ""
    unsplit: int = 0  # micro-batches of a step before they were cut finer to fit into memory; 0: they were not
    source: int = 0  # tokens of a row that an encoder reads where a decoder writes beside it; 0: there is none
    target: int = 0  # tokens of a row that it writes
    average: float = 0.0  # what a step keeps of the running mean of the weights; 0: there is none
    muon_block: int = 0  # rows that Muon orthogonalises together; 0: those of a matrix

    @property
    def rows_here(self) -> int:
        """Rows of one micro-batch on one rank, at most."""
        return self.rows if self.parallel == "tensor" else math.ceil(self.rows / self.ranks)

    def write(self, folder: Path) -> None:
        files.write_text(folder / PLAN, tomli_w.dumps({"schema": files.SCHEMA, **asdict(self)}))

    @classmethod
    def read(cls, folder: Path) -> "Plan | None":
        """The plan of a training begun earlier, or None."""
        if not (folder / PLAN).exists():
            return None
        table: dict[str, Any] = dict.fromkeys(_NEW, 0) | tomllib.loads((folder / PLAN).read_text("utf-8"))
        if table.pop("schema", None) != files.SCHEMA or set(table) != set(cls.__dataclass_fields__):
            raise UserError("E306", path=folder / PLAN)
        return cls(**table)


@dataclass(frozen=True)
class Request:
    """What a plan is made for."""

    task: Task
    train: Train
    loader: Loader
    held_out: Loader | None
    begins: Begins  # the weights that it begins with
    started: float  # time.monotonic() when the stage began: its preparation counts against the budget
    parallel: str = "auto"  # "ddp", "fsdp", "tensor", or replicas where they fit
    device: str = device.CPU  # where the network is
    compile: str | bool = "auto"  # "auto": where it pays back
    folder: Path | None = None  # where weights are set aside; in memory where there is none


def resolve(request: Request, net: nn.Module) -> Plan:
    """Measure on a throw-away copy of `net` and decide everything.

    Raises:
        UserError: E216, no rows to train on; E112, the budget is too short for a single step; E403, no row fits;
            E123, a step has fewer rows than there are ranks; E129, they are asked to compile; E136, E137, the device
            or the network cannot be multiplied with in fp8.
    """
    compiling.check(request)
    device.multiplies(request.train.precision, request.device)
    precision.check(net, request.train.precision)
    if not len(request.loader):
        raise UserError("E216")
    drafted = draft(request, net)
    if request.parallel == "auto" and ranks.count() > 1 and not split.allows(net, drafted):
        drafted = replace(drafted, parallel="fsdp")  # replicas do not fit
        _check_sample(request)
    if drafted.parallel != "ddp":
        return _parted(request, net, drafted)
    drafted = split.fitted(request, net, _foreseen(request, net, drafted))
    plan = _as_before(request, net, drafted) or _first(request, net, drafted)
    tried = compiling.decided(request, plan, pace.work(net, plan), lambda form: _exactly(request, net, form))
    return plan if tried is plan else pace.held(lambda: _timed(request, net, tried))  # a trial takes of the budget


def _as_before(request: Request, net: nn.Module, drafted: Plan) -> Plan | None:
    """The plan with what a trial of the same steps found before."""
    if (plan := pace.known(request, net, drafted)) is None:
        return None
    return replace(_timed(request, net, plan), memory_mb=plan.memory_mb)


def _first(request: Request, net: nn.Module, drafted: Plan) -> Plan:
    """The plan after a trial, which is remembered."""
    plan = pace.held(lambda: _tried(request, net, drafted))
    pace.learned(request, net, drafted, plan)
    return plan


def _tried(request: Request, net: nn.Module, drafted: Plan) -> Plan:
    """The plan after trials of its steps: how attention is computed, their pace, and how long the training is."""
    plan = _timed(request, net, pace.brief(request, net, pace.measured(request, net, drafted)))
    if request.train.counted and plan.accumulate == drafted.accumulate:
        return plan  # the same steps told the pace
    dropping = _dropped(request, plan)
    if dropping.dropout != plan.dropout:  # it takes time and memory too
        plan = split.fitted(request, net, dropping)
    return _timed(request, net, replace(plan, seconds_per_step=_exactly(request, net, plan)))


def _exactly(request: Request, net: nn.Module, plan: Plan) -> float:
    """Seconds of a step, from as many as are timed for a forecast."""
    return pace.step_seconds(request, net, plan, pace.ROUNDS) * pace.SLACK


def _foreseen(request: Request, net: nn.Module, plan: Plan) -> Plan:
    """The plan with the dropout that follows from its length, where the recipe says that."""
    return _dropped(request, _timed(request, net, plan)) if request.train.counted else plan


def _dropped(request: Request, plan: Plan) -> Plan:
    """The plan with dropout where rows are seen often, if the recipe leaves it open."""
    chosen = usual.dropout(plan.tokens / request.loader.predictions)
    return replace(plan, dropout=chosen) if request.train.dropout == "auto" else plan


def _parted(request: Request, net: nn.Module, plan: Plan) -> Plan:
    """A plan that no rank can try alone, which would need the whole network: forecast only; `paced` measures it."""
    plan = split.fitted(request, net, plan)
    seconds_per_step = (
        step_gflop(net, plan) / (cost.peak(plan.precision, plan.device) / 1e9) / plan.ranks / _PARTED_SHARE
    )
    return _dropped(request, _timed(request, net, replace(plan, seconds_per_step=seconds_per_step)))


def paced(request: Request, net: nn.Module, plan: Plan, together: Alone) -> Plan:
    """The plan at the pace that the ranks reach together: rank 0 alone had the machine for itself."""
    each = pace.step_seconds(request, net, plan, together=together) * pace.SLACK
    return Plan(**ranks.agreed(lambda: asdict(_timed(request, net, replace(plan, seconds_per_step=each)))))


def draft(request: Request, net: nn.Module) -> Plan:
    """What follows from the recipe alone."""
    train = request.train
    tensor = request.parallel == "tensor"  # every rank sees every row
    if tensor:
        _check_heads(net)
    if request.parallel in ("fsdp", "tensor"):
        _check_sample(request)
    rows, accumulate = cut(request, net, 1 if tensor else ranks.count())
    if rows * accumulate < ranks.count() and not tensor:
        least = ranks.count() * request.loader.context
        raise UserError("E123", rows=rows * accumulate, devices=ranks.count(), least=least)
    plan = Plan(
        depth=getattr(net, "depth", 0),
        dropout=0.0 if train.dropout == "auto" else train.dropout,
        rows=rows,
        accumulate=accumulate,
        context=request.loader.context,
        average=train.average,
        optimizer="adamw",
        lr=0.0,
        weight_decay=0.0,
        precision=cost.faster_precision(request.device) if train.precision == "auto" else train.precision,
        threads=torch.get_num_threads(),
        attention=usual.attention(net) if train.attention == "auto" else train.attention,
        checkpointing="blocks" if train.recompute is True else "none",
        ranks=ranks.count(),
        parallel="ddp" if request.parallel == "auto" or ranks.count() == 1 else request.parallel,
        device=request.device,
        device_name=device.name(request.device),
        **sides.lengths(request.task, request.loader, net),
    )
    optimizer = usual.optimizer(request, net, plan) if train.optimizer == "auto" else train.optimizer
    return replace(
        plan,
        optimizer=optimizer,
        muon_block=usual.block(net, plan) if optimizer == "muon" else 0,
        lr=usual.rate(request, net, optimizer) if train.lr == "auto" else float(train.lr),
        weight_decay=usual.decay(request, optimizer) if train.weight_decay == "auto" else float(train.weight_decay),
    )


def _check_heads(net: nn.Module) -> None:
    """Raise UserError E125 where the ranks cannot share the heads; here rank 0 says it, once for all."""
    from danlu.train.tensor import check

    check(stack(net), ranks.count())


def _check_sample(request: Request) -> None:
    """Raise UserError E126 where a text is to be continued: that needs whole weights, and a cache of all heads."""
    if request.train.sample and ranks.count() > 1:
        raise UserError("E126", key="train.sample")


def cut(request: Request, net: nn.Module, sharing: int) -> tuple[int, int]:
    """Rows of a micro-batch and micro-batches of a step, where so many devices share the rows."""
    train, loader = request.train, request.loader
    tokens = usual.tokens(request, net, sharing) if train.batch_tokens == "auto" else train.batch_tokens
    rows = min(max(1, round(tokens / loader.context)), max(1, len(loader)))
    parts = split.parts(request, rows, sharing)
    return rows // parts, parts


def prepare(net: nn.Module, plan: Plan) -> None:
    """Set what a plan decides about the network itself: its products, attention, what is kept, dropout of sums."""
    fp8.switch(net, plan.precision == "fp8")
    inside = {module.dropout for module in net.modules() if isinstance(module, Attention)}
    for module in net.modules():
        if hasattr(module, "attention_form"):
            module.attention_form = plan.attention  # type: ignore[assignment]
            module.checkpointing = plan.checkpointing  # type: ignore[assignment]
        elif isinstance(module, Dropout) and module not in inside:
            module.p = plan.dropout


def _timed(request: Request, net: nn.Module, plan: Plan) -> Plan:
    """The length of the training, and when it looks and saves."""
    train, loader, held_out = request.train, request.loader, request.held_out
    rows_per_step = plan.rows * plan.accumulate
    steps = _steps(request, net, plan)
    mean = plan.seconds_per_step * pace.effort(request.task, plan.device)
    per_row = plan.seconds_per_step / rows_per_step / 3  # a forward pass is a third of a step
    budget = int(0.1 * steps * rows_per_step * 3 / 2)  # rows to look at: evaluation takes about a twentieth of the time
    looks = _looks(request, budget)
    every = max(1, math.ceil(steps / looks)) if train.evaluate_every == "auto" else train.evaluate_every
    looks = math.ceil(steps / every)
    wanted = max(8, budget // looks)
    evaluate_rows = min(wanted, len(held_out)) if held_out else 0
    due = max(1, min(steps, math.ceil(60 / max(plan.seconds_per_step, 1e-9))))
    save_every = due if train.save_every == "auto" else train.save_every
    weights = sum(p.numel() for p in net.parameters())
    forecast = (
        steps * mean + looks * evaluate_rows * per_row + math.ceil(steps / save_every) * weights * 12 / _WRITE_RATE
    )
    return replace(
        plan, steps=steps, evaluate_every=every, evaluate_rows=evaluate_rows, save_every=save_every,
        stable_step=schedule.stable_until(steps, train) if train.schedule == "wsd" else steps,
        tokens=int(steps * rows_per_step * loader.predictions / len(loader)), seconds=forecast,
        memory_mb=int(memory.forecast(net, plan) / 1e6),
        peak_gflops=cost.peak(plan.precision, plan.device) / 1e9 * plan.ranks, step_gflop=step_gflop(net, plan),
    )  # fmt: skip


def _looks(request: Request, rows: int) -> int:
    """Looks at the held-out rows: few at all of them where a share of answers is to be told, else many at some."""
    few, many = EVALUATIONS
    whole = rows // max(1, len(request.held_out or ()))
    return max(few, min(many, whole)) if request.task.selects else many


def _steps(request: Request, net: nn.Module, plan: Plan) -> int:
    train, loader = request.train, request.loader
    rows = plan.rows * plan.accumulate
    if train.steps is not None:
        return train.steps
    if train.tokens is not None:
        return max(1, math.ceil(count(train.tokens) / (rows * loader.predictions / len(loader))))
    if train.epochs is not None:
        return max(1, math.ceil(train.epochs * len(loader) / rows))
    left = seconds(train.budget or "5min") - (time.monotonic() - request.started)
    saving = sum(p.numel() for p in net.parameters()) * 12 / _WRITE_RATE
    mean = plan.seconds_per_step * pace.effort(request.task, plan.device)
    looking = plan.seconds_per_step * _LOOKING if request.held_out else 0.0
    steps = int(left / (mean + looking + saving * mean / 60))
    if steps < 1:
        spent = f"{time.monotonic() - request.started:.0f} s"
        raise UserError("E112", budget=train.budget, step=f"{plan.seconds_per_step:.1f} s", spent=spent)
    return steps


def step_gflop(net: nn.Module, plan: Plan) -> float:
    """Operations of one step, in thousand millions."""
    if plan.source:
        return sides.flops(net, plan.source, plan.target) * plan.rows * plan.accumulate / 1e9
    worth, config = sum(cost.products(net).values()), stack(net)
    layers, width = (config.layers, config.dim) if config is not None else (0, 0)
    rows = plan.rows * plan.accumulate
    if flops := getattr(net, "flops", 0.0):  # of convolutions, forward: backward is twice as much
        return 3e-9 * float(flops) * rows * plan.context
    places = plan.context * getattr(net, "places", 1)
    return cost.flops_per_token(worth, layers, width, places) * rows * places / 1e9
