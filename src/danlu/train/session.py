"""One training from plan to selected weights: resolve or go on, loop, watch, save. Pretrain and finetune are this."""

import json
import math
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from danlu import cores, device, disk, files, ranks, room, stopping
from danlu.errors import UserError
from danlu.messages import text
from danlu.quantity import seconds
from danlu.train import checkpoint, compiling, distributed, log, mark, memory, pace, split, usual
from danlu.train.events import Evaluated, Halted, Stepped
from danlu.train.gauge import Gauge
from danlu.train.loop import Training
from danlu.train.plan import PLAN, Plan, Request, paced, prepare, resolve

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TRIES = 3  # saves in a row for which a full disk has no room, until a training gives up


class Watcher(Protocol):
    def progress(self, done: float, total: float, note: str) -> None: ...
    def line(self, line: str) -> None: ...


class Interrupted(Exception):
    """The training was stopped from outside after saving; the same command goes on (exit 75)."""


@dataclass
class Result:
    plan: Plan
    weights: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def fit(
    request: Request, net: nn.Module, out: Path, seed: int, view: Watcher, sample: Callable[[], str] | None = None
) -> Result:
    """Train `net` in the folder `out`, going on from what is there; return the selected weights.

    Raises:
        Interrupted: a signal or the deadline; the state is saved.
        UserError: no rows, a budget too short, diverged, damaged checkpoints, a full disk, too little memory.
        RankLost: another rank ended.
    """
    threads, watch = torch.get_num_threads(), cores.Watch()
    request = replace(request, folder=out)
    plan, together = _planned(request, net, out, view, distributed.joined(request.task))
    if ranks.rank() == 0:
        plan.write(out)
    if plan.threads != threads:
        view.line(text("train.threads", threads=plan.threads, all=threads))
    trained, total = memory.counted(net)
    share = {"share": f"{trained / total:.2%}", "memory": f"{plan.memory_mb:,}"}
    view.line(text("train.trainable", trainable=f"{trained:,}", total=f"{total:,}", **share))
    usual.told(request, net, plan, view)
    _tell_crowding(plan, watch, view)
    torch.set_num_threads(plan.threads)  # sums over another number of threads end in other bits
    prepare(net, plan)
    training = Training(request.task, net, request.train, plan, seed, together, request.folder)
    if saved := _newest(out / CHECKPOINTS, view, together):
        training.restore(saved)
        view.line(text("train.resumed", step=training.position.step, steps=plan.steps))
    session = _Session(request, training, out, view, sample)
    if ranks.rank() == 0:
        aside = 8 * trained * plan.ranks * memory.held(net, plan) * (plan.device == device.CPU)  # best and first ones
        disk.require(out, training.checkpoint().bytes * (1 if saved else 2) + aside)  # the next one beside the last
        log.cut(out / METRICS, training.position.step, training.position.looked)
        with mark.running(out, plan):
            session.run()
        checkpoint.prune(out / CHECKPOINTS, plan.stable_step)
    else:
        session.run()
    if plan.compiled_from == compiling.NEVER and training.position.step:
        pace.outrun(request, net, plan, training.position)
    facts = _facts(training, request.loader.padding) | session.gauge.facts
    room.trim()
    return Result(plan, together.whole(training.final_weights()), facts)


def _tell_crowding(plan: Plan, watch: cores.Watch, view: Watcher) -> None:
    """Say what will slow the training down: more threads than cores, or another process on them."""
    if plan.ranks > 1:  # the launcher gives each rank its share
        return
    if plan.threads > (usable := cores.usable()):
        view.line(text("train.oversubscribed", threads=plan.threads, cores=f"{usable:g}"))
    if (other := watch.neighbour()) is not None and plan.threads + other.cores > usable:
        left = max(1, int(usable - other.cores))
        leaves = text("train.leaves", left=left) if left < plan.threads else ""
        view.line(text("train.neighbour", name=other.name, pid=other.pid, cores=f"{other.cores:.1f}") + leaves)


def _newest(root: Path, view: Watcher, together: distributed.Alone) -> checkpoint.Checkpoint | None:
    """The newest checkpoint that rank 0 finds whole.

    Raises:
        UserError: E124, this rank does not find it.
    """
    if ranks.count() == 1:
        saved, damaged = checkpoint.newest(root)
        for name in damaged:
            view.line(text("train.damaged", name=name))
        return saved
    step, damaged = ranks.agreed(lambda: checkpoint.newest_step(root))
    for name in damaged:
        view.line(text("train.damaged", name=name))
    if step is None:
        return None
    if (found := together.read(root, step)) is None:
        raise UserError("E124", rank=ranks.rank(), path=checkpoint.folder_of(root, step))
    return found


def _planned(
    request: Request, net: nn.Module, out: Path, view: Watcher, together: distributed.Alone
) -> tuple[Plan, distributed.Alone]:
    """The plan that rank 0 has or makes; the pace of a new one is measured on all ranks together."""
    _share(request, together)
    begun = ranks.agreed(lambda: (out / PLAN).exists())
    plan = Plan(**ranks.agreed(lambda: asdict(_decided(request, net, out, view))))
    together = distributed.strategy(together, request.task, plan.parallel)
    _share(request, together)
    return plan if begun or plan.ranks == 1 else paced(request, net, plan, together), together


def _share(request: Request, together: distributed.Alone) -> None:
    """Let the loaders give this rank its rows."""
    request.loader.share = together.share
    if request.held_out:
        request.held_out.share = together.mine


def _decided(request: Request, net: nn.Module, out: Path, view: Watcher) -> Plan:
    """The plan of a training begun earlier, its micro-batches cut finer if that took all memory; or a new one."""
    plan = Plan.read(out)
    if plan is None:
        plan = resolve(request, net)
        compiling.told(request, plan, view)
        if plan.checkpointing == "blocks":
            view.line(text("train.recomputed"))
        if plan.unsplit:
            sizes = {"rows": plan.rows, "accumulate": plan.accumulate, "unsplit": plan.unsplit}
            view.line(
                text("train.fitted", **sizes, needed=f"{plan.memory_mb:,}", free=f"{split.available(plan) / 1e6:,.0f}")
            )
    elif mark.killed(out):
        parts = split.finer(request.task, plan.rows, plan.accumulate)
        if parts is not None:
            plan = replace(plan, rows=plan.rows * plan.accumulate // parts, accumulate=parts)
        view.line(text("train.killed", rows=plan.rows, accumulate=plan.accumulate))
    plan = compiling.kept(plan, view)
    if plan.device != request.device:
        plan = _moved(plan, request.device, view)
    if plan.ranks != ranks.count():
        view.line(text("train.elastic", before=plan.ranks, now=ranks.count()))
        plan = _recut(request, plan)
    if request.parallel != "auto":  # how the ranks share the weights may change at every start
        plan = replace(plan, parallel=request.parallel if plan.ranks > 1 else "ddp")
    return plan


def _moved(plan: Plan, to: str, view: Watcher) -> Plan:
    """The plan on another device, where it was begun elsewhere. What is learned stays, its last bits do not."""
    name = device.name(to)
    device.multiplies(plan.precision, to)
    if plan.device_name != name:
        view.line(text("train.moved", before=plan.device_name or plan.device, now=name))
    return replace(plan, device=to, device_name=name)


def _recut(request: Request, plan: Plan) -> Plan:
    """The plan for another number of ranks: none holds more rows than before. Steps, and the order of rows, stay."""
    now, total = ranks.count(), plan.rows * plan.accumulate
    fits = (n for n in range(1, total + 1) if total % n == 0 and math.ceil(total / n / now) <= plan.rows_here)
    parts = plan.accumulate if request.task.coupled != "none" else next(fits)
    return replace(plan, rows=total // parts, accumulate=parts, ranks=now, threads=torch.get_num_threads())


def _facts(training: Training, padding: float) -> dict[str, Any]:
    position, plan = training.position, training.plan
    facts: dict[str, Any] = {
        "steps": position.step,
        "tokens": position.tokens,
        "best_step": position.best_step,
        "skipped_steps": position.skipped,
        "rollbacks": position.rollbacks,
        "training_seconds": round(position.seconds, 2),
        "tokens_per_second": round(position.tokens / max(position.seconds, 1e-9), 1),
        "precision": plan.precision,
        "device": plan.device_name,
        "checkpointing": plan.checkpointing,
        "padding": round(padding, 4),
    }
    if position.best is not None:
        facts["validation_loss"] = position.best
    return facts


class _Session:
    """The loop's watcher: it logs, saves, and stops when asked."""

    def __init__(
        self, request: Request, training: Training, out: Path, view: Watcher, sample: Callable[[], str] | None
    ):
        self.request, self.training, self.out, self.view, self.sample = request, training, out, view, sample
        self.plan = training.plan
        self.saved = self.settled = self._mark()
        self.good, self.refused, self.missing = training.position.step, 0, 0
        self.before = training.position.anchor, training.start
        self.stop = ""
        self.together, self.leads = training.ranks, ranks.rank() == 0
        self.gauge = Gauge(self.plan, request.task)
        training.halted = lambda: self.together.any(bool(self.stop))
        training.recall = self._recalled

    def run(self) -> None:
        """Raises Interrupted after saving when asked to stop."""
        with stopping.told(self._asked):
            try:
                self._watch()
                self._attempt(self._settle)
            except Halted:
                self._leave()

    def _watch(self) -> None:
        deadline = math.inf
        if self.request.train.deadline:
            deadline = time.monotonic() + seconds(self.request.train.deadline)
        for event in self.training.events(self.request.loader, self.request.held_out):
            if isinstance(event, Stepped):
                self._stepped(event)
            else:
                self._evaluated(event)
            if time.monotonic() > deadline:
                self.stop = text("train.deadline")
            self._save_or_stop(event)

    def _asked(self, number: int, frame: Any) -> None:
        if self.stop:  # the second time at once; the last checkpoint stands
            raise KeyboardInterrupt
        self.stop = text("train.asked", name=signal.Signals(number).name)

    def _save_or_stop(self, event: Stepped | Evaluated) -> None:
        step = event.step
        asked = self.together.any(bool(self.stop))  # all ranks leave at the same step, whenever a signal comes
        if asked and not self.stop:
            self.stop = text("train.elsewhere")
        if isinstance(event, Stepped) and self.training.looks(step, self.request.held_out):
            return  # what the evaluation of this step finds belongs to its state: save and stop after it
        due = step % self.plan.save_every == 0 or step in (self.plan.stable_step, self.plan.steps)
        if asked and step < self.plan.steps:
            self._leave(anchored=due)
        elif due:
            self._attempt(self._settle)
            self._attempt(partial(self._save, anchored=True))

    def _leave(self, *, anchored: bool = False) -> NoReturn:
        """Save and go. Raises Interrupted, or UserError E406 where there is no room to save."""
        try:
            self._save(anchored=anchored)
            self._settle()
        except UserError as full:
            raise self._full(full) from full
        raise Interrupted(self.stop)

    def _attempt(self, write: Callable[[], None]) -> None:
        """Write; where the disk is full the training goes on, and tries again when it is next due.

        Raises:
            UserError: E406, it is the third time in a row.
        """
        try:
            write()
        except UserError as error:
            full = self._full(error)
            self.refused += 1
            if self.refused == TRIES:
                raise full from error
            self.view.line(text("train.full", count=self.refused, limit=TRIES, **full.fields))

    def _recalled(self, step: int) -> checkpoint.Checkpoint | None:
        """The checkpoint of a step, once it is whole."""
        self._attempt(self._settle)
        return self.together.read(self.out / CHECKPOINTS, step)

    def _full(self, error: UserError) -> UserError:
        """E406 in the place of E401; another error is raised as it is."""
        if error.code != "E401":
            raise error
        needed = disk.legible(self.training.checkpoint().bytes)
        return UserError("E406", needed=needed, step=self.missing, good=self.good, **error.fields)

    def _save(self, *, anchored: bool) -> None:
        """Save the current state unless it is saved already. `anchored`: a roll-back may return to it.

        Only the plan decides where a roll-back goes, never the moment of a signal; and never to what is not there.
        """
        if self._mark() == self.saved:
            return
        self._settle()
        training = self.training
        self.before = training.position.anchor, training.start
        if anchored:
            training.anchor()
        keep = frozenset({self.plan.stable_step, training.position.anchor})
        root, state = self.out / CHECKPOINTS, training.checkpoint()
        if state.best is not None:
            room.trim()  # they are read again, one by one
        if self._written(state.position.step, lambda: self.together.save(root, state, keep)):
            self.saved = self._mark()

    def _settle(self) -> None:
        """Wait for what is still being written of the last save; raises what kept it from being written."""
        if self.saved != self.settled and self._written(self.saved[0], self.together.settle):
            self.settled, self.good, self.refused = self.saved, self.saved[0], 0

    def _written(self, step: int, write: Callable[[], None]) -> bool:
        """Whether all ranks could write; raises what kept this one from it. No rank returns to what is not there."""
        self.missing, refused = step, None
        try:
            with stopping.saving():
                write()
        except UserError as error:
            refused = error
        failed = self.together.any(refused is not None)
        if failed:
            self.training.position.anchor, self.training.start = self.before
            self.saved = self.settled
        if refused is not None:
            raise refused
        return not failed

    def _mark(self) -> tuple[int, int]:
        return self.training.position.step, self.training.position.looked

    def _stepped(self, event: Stepped) -> None:
        said = self.gauge.read(event)
        entry = {name: getattr(event, name) for name in ("step", "loss", "lr", "norm", "tokens", "seconds", "waited")}
        if event.incidents:
            entry["incidents"] = [{"kind": each.kind, **each.facts} for each in event.incidents]
        self._log(entry)
        for incident in event.incidents:
            self.view.line(log.said(incident))
        self.view.progress(event.step, self.plan.steps, said)

    def _evaluated(self, event: Evaluated) -> None:
        self._log({"step": event.step, "validation": event.metrics})
        loss = next(iter(event.metrics.values()))
        letter, choices = self.request.task.choices
        rest = " · ".join(f"{text(f'metrics.{name}')} {value:.3f}" for name, value in list(event.metrics.items())[1:4])
        said = text(
            "train.evaluated", step=event.step, steps=self.plan.steps, loss=f"{loss:.3f}", letter=letter,
            start=f"{math.log(choices):.2f}", rest=rest,
        )  # fmt: skip
        self.view.line(said)
        if self.sample:
            with self.training.average.lent():
                self.view.line("    " + self.sample())

    def _log(self, entry: dict[str, Any]) -> None:
        if not self.leads:
            return
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in entry.items()}
        with suppress(UserError):  # a log that cannot be written never stops a training
            files.append_line(self.out / METRICS, json.dumps(clean))
