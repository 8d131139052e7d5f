"""Resolve, then run: everything that is measured is decided once, before step 0, and written to plan.toml.

From there nothing reads a clock: the same plan, machine, torch and thread count give the same weights.
"""

import copy
import math
import time
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import nn

from danlu import files
from danlu.config import Train, count, seconds
from danlu.data.loader import Loader
from danlu.errors import UserError
from danlu.tasks.task import Task
from danlu.train import cost, schedule

PLAN = "plan.toml"
EVALUATIONS = 10  # looks at the validation rows in one training, where the recipe does not say
_MICRO_TOKENS = 8192  # tokens of one micro-batch: beyond it activations leave the caches and nothing is gained
_WRITE_RATE = 200e6  # bytes per second that a synced write is assumed to reach


@dataclass(frozen=True)
class Plan:
    """The resolved form of one training."""

    depth: int  # of the network; chosen before anything else where the recipe says "auto"
    steps: int
    rows: int  # packed rows of one micro-batch
    accumulate: int
    context: int
    optimizer: str
    lr: float
    weight_decay: float
    precision: str
    attention: str
    threads: int
    evaluate_every: int
    evaluate_rows: int
    save_every: int
    stable_step: int  # the last step before the decay: its checkpoint can be extended
    tokens: int  # of the whole training
    seconds_per_step: float  # measured
    seconds: float  # forecast of the whole, evaluation and saving included
    memory_mb: int  # forecast of the process
    peak_gflops: float  # of a matrix product in this precision
    step_gflop: float

    def write(self, folder: Path) -> None:
        files.write_text(folder / PLAN, tomli_w.dumps({"schema": files.SCHEMA, **asdict(self)}))

    @classmethod
    def read(cls, folder: Path) -> "Plan | None":
        """The plan of a training begun earlier, or None."""
        if not (folder / PLAN).exists():
            return None
        table: dict[str, Any] = tomllib.loads((folder / PLAN).read_text("utf-8"))
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
    pretraining: bool
    started: float  # time.monotonic() when the stage began: its preparation counts against the budget


def resolve(request: Request, net: nn.Module) -> Plan:
    """Measure on a throw-away copy of `net` and decide everything.

    Raises:
        UserError: E216, no rows to train on; E112, the budget is too short for a single step.
    """
    train, loader = request.train, request.loader
    if not len(loader):
        raise UserError("E216")
    rows, accumulate = _cut(train, loader)
    optimizer = ("muon" if request.pretraining else "adamw") if train.optimizer == "auto" else train.optimizer
    draft = Plan(
        depth=net.core.config.layers if hasattr(net, "core") else 0, steps=0, rows=rows, accumulate=accumulate, context=loader.context, optimizer=optimizer,
        lr=_LR[optimizer, request.pretraining] if train.lr == "auto" else float(train.lr),
        weight_decay=(0.05 if request.pretraining else 0.01) if train.weight_decay == "auto" else float(train.weight_decay),
        precision=cost.faster_precision() if train.precision == "auto" else train.precision,
        attention="sdpa", threads=torch.get_num_threads(), evaluate_every=1, evaluate_rows=0, save_every=1, stable_step=0,
        tokens=0, seconds_per_step=0.0, seconds=0.0, memory_mb=0, peak_gflops=0.0, step_gflop=0.0,
    )  # fmt: skip
    measured = _measured(request, net, draft)
    return _timed(request, net, measured)


_LR = {("muon", True): 0.03, ("muon", False): 0.005, ("adamw", True): 2e-3, ("adamw", False): 5e-4, ("adam", True): 2e-3,
       ("adam", False): 5e-4, ("sgd", True): 0.1, ("sgd", False): 0.02, ("rmsprop", True): 1e-3, ("rmsprop", False): 2e-4}  # fmt: skip


def _cut(train: Train, loader: Loader) -> tuple[int, int]:
    """Rows of a micro-batch and micro-batches of a step."""
    tokens = 2048 if train.batch_tokens == "auto" else train.batch_tokens
    rows = min(max(1, round(tokens / loader.context)), max(1, len(loader)))
    if train.accumulate == "auto":
        parts = math.ceil(rows * loader.context / _MICRO_TOKENS)
    else:
        parts = train.accumulate
    return math.ceil(rows / parts), parts


def _measured(request: Request, net: nn.Module, draft: Plan) -> Plan:
    """Time real steps in each form of attention and keep the faster."""
    timed = {form: _step_seconds(request, net, replace(draft, attention=form, steps=100), rounds=3) for form in ("sdpa", "written")}
    best = min(timed, key=lambda form: timed[form])
    return replace(draft, attention=best, seconds_per_step=timed[best])


def _step_seconds(request: Request, net: nn.Module, plan: Plan, rounds: int) -> float:
    """The median time of a few steps on a copy, after one warm-up step."""
    from danlu.train.loop import Training

    copied = copy.deepcopy(net)
    use_attention(copied, plan.attention)
    training = Training(request.task, copied, request.train, plan, seed=0)
    times = [next(training.events(request.loader, None)).seconds for _ in range(rounds + 1)][1:]  # type: ignore[union-attr]
    return sorted(times)[len(times) // 2]


def use_attention(net: nn.Module, form: str) -> None:
    """Set the form of attention in every Transformer of a network."""
    for module in net.modules():
        if hasattr(module, "attention_form"):
            module.attention_form = form


def _timed(request: Request, net: nn.Module, plan: Plan) -> Plan:
    """The length of the training, and when it looks and saves."""
    train, loader, held_out = request.train, request.loader, request.held_out
    rows_per_step = plan.rows * plan.accumulate
    steps = _steps(request, net, plan)
    per_row = plan.seconds_per_step / rows_per_step / 3  # a forward pass is a third of a step
    every = max(1, math.ceil(steps / EVALUATIONS)) if train.evaluate_every == "auto" else train.evaluate_every
    looks = math.ceil(steps / every)
    wanted = max(8, int(0.1 * steps * rows_per_step * 3 / looks / 2))  # evaluation takes about a twentieth of the time
    evaluate_rows = min(wanted, len(held_out)) if held_out else 0
    save_every = max(1, min(steps, math.ceil(60 / max(plan.seconds_per_step, 1e-9)))) if train.save_every == "auto" else train.save_every
    weights = sum(p.numel() for p in net.parameters())
    forecast = steps * plan.seconds_per_step + looks * evaluate_rows * per_row + math.ceil(steps / save_every) * weights * 12 / _WRITE_RATE
    return replace(
        plan, steps=steps, evaluate_every=every, evaluate_rows=evaluate_rows, save_every=save_every,
        stable_step=schedule.stable_until(steps, train) if train.schedule == "wsd" else steps,
        tokens=int(steps * rows_per_step * loader.predictions / len(loader)), seconds=forecast,
        memory_mb=_memory(net, plan), peak_gflops=cost.peak(plan.precision) / 1e9, step_gflop=_step_gflop(net, plan),
    )  # fmt: skip


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
    steps = int(left / (plan.seconds_per_step * (1.05 if request.held_out else 1.0) + saving * plan.seconds_per_step / 60))
    if steps < 1:
        raise UserError("E112", budget=train.budget, step=f"{plan.seconds_per_step:.1f} s", spent=f"{time.monotonic() - request.started:.0f} s")
    return steps


def _memory(net: nn.Module, plan: Plan) -> int:
    """MB: weights, masters, gradients, optimizer, and activations of one micro-batch."""
    weights = sum(p.numel() for p in net.parameters())
    config = net.core.config if hasattr(net, "core") else None
    activations = 0.0
    if config is not None:
        per_token = config.layers * (14 * config.dim + 4 * config.hidden) * (2 if plan.precision == "bf16" else 4)
        activations = plan.rows * plan.context * per_token
        if plan.attention == "written":
            activations += plan.rows * config.layers * config.heads * plan.context**2 * 6
    return int((weights * 22 + activations) / 1e6 + 450)


def _step_gflop(net: nn.Module, plan: Plan) -> float:
    matrices = sum(p.numel() for p in net.parameters() if p.ndim >= 2)
    config = net.core.config if hasattr(net, "core") else None
    layers, width = (config.layers, config.dim) if config is not None else (0, 0)
    return cost.flops_per_token(matrices, layers, width, plan.context) * plan.rows * plan.accumulate * plan.context / 1e9
