"""The one training loop, for every task: a generator of events that saves nothing and prints nothing itself."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danlu import device
from danlu.config import Train
from danlu.data.loader import Loader, Shape
from danlu.errors import UserError
from danlu.nn.dropout import use_generator
from danlu.randomness import generator
from danlu.tasks.task import Task
from danlu.train import allocator, compiling, guard, optim, probe, rates, schedule, split
from danlu.train.aside import Aside
from danlu.train.average import Average
from danlu.train.checkpoint import Checkpoint, Named, Position
from danlu.train.distributed import Alone
from danlu.train.events import Evaluated, Event, Halted, Incident, Stepped
from danlu.train.feed import Fed, Feed, placed
from danlu.train.passes import passes
from danlu.train.plan import Plan, Request
from danlu.train.precision import DTYPES


class Training:
    """A training under way: the network, its masters, the optimizers of its parts, and its position.

    `halted` is asked between micro-batches and between batches of an evaluation; `recall` gives the checkpoint of a
    step to which the training wants to return. Both are set by whoever saves; without, nothing stops it, and it
    returns to its start. `folder` is where weights are set aside; without, in memory.
    """

    def __init__(
        self, task: Task, net: nn.Module, train: Train, plan: Plan, seed: int, ranks: Alone | None = None,
        folder: Path | None = None,
    ):  # fmt: skip
        self.task, self.net, self.train, self.plan, self.seed = task, net, train, plan, seed
        self.ranks = ranks or Alone()
        allocator.tune()
        self.masters = self.ranks.masters(net, DTYPES[plan.precision])
        self.optimizers = {part: self._optimizer(part) for part in task.parts}
        self.average = Average(train.average, self.masters)
        self.device = next(net.parameters()).device
        self.feed = Feed(task, seed, self.ranks, self.device, plan.steps)
        self.dropout = torch.Generator(self.device)  # set anew for each micro-batch: no state to be saved
        use_generator(net, self.dropout)
        self.position = Position()
        self.set_aside = partial(Aside, folder=folder)
        self.best: Aside | None = None  # of what is trained
        self.start: Aside | None = self.set_aside(self.masters.params)
        self.halted: Callable[[], bool] = lambda: False
        self.recall: Callable[[int], Checkpoint | None] = lambda step: None
        self._incidents: list[Incident] = []
        self._compiled: bool | None = None

    def _optimizer(self, part: str) -> "optim.Optimizer | rates.Paced":
        params = {name: p for name, p in self.masters.params.items() if name.startswith(prefix(part))}
        made, dtype = self.ranks.optimizer(self.plan.optimizer), DTYPES[self.plan.precision]
        block = self.plan.muon_block
        make = partial(made, train=self.train, decay=self.plan.weight_decay, dtype=dtype, block=block)
        return rates.optimizer(params, self.train, self.plan.steps, make)

    @property
    def shape(self) -> Shape:
        """How a step is cut: as planned, or finer since memory ran out."""
        rows, parts = self.plan.rows * self.plan.accumulate, max(self.plan.accumulate, self.position.accumulate)
        return Shape(rows // parts, parts)

    # --- the loop ---

    def events(self, loader: Loader, held_out: Loader | None) -> Iterator[Event]:
        """Train from the current position to the last step of the plan.

        Raises:
            Halted: `halted` said so; the position is the last whole step's.
            UserError: E501, it diverged; E403, not one row fits into memory.
        """
        if self._looks_now(held_out):
            yield self._evaluate(held_out)
        while self.position.step < self.plan.steps and not self._stale():
            yield self._step(loader)
            if self._looks_now(held_out):
                yield self._evaluate(held_out)

    def _stale(self) -> bool:
        """Whether the last evaluations were no better; part of the position, so that a resumed training knows it."""
        return bool(self.train.stop_early) and self.position.stale >= (self.train.stop_early or 0)

    def _saw_whole_samples(self) -> bool:
        """Whether the last step learned from such as are asked about: before, no look tells that it gets no better."""
        return self.task.share((self.position.step - 1) / self.plan.steps) == 1.0

    def _looks_now(self, held_out: Loader | None) -> bool:
        """Whether the evaluation that follows the last step is still to be done."""
        return self.position.looked < self.position.step and self.looks(self.position.step, held_out)

    def looks(self, step: int, held_out: Loader | None) -> bool:
        """Whether an evaluation follows this step."""
        return (
            held_out is not None
            and len(held_out) > 0
            and (step % self.plan.evaluate_every == 0 or step == self.plan.steps)
        )

    def _step(self, loader: Loader) -> Stepped:
        start, position = time.perf_counter(), self.position
        lr = self.plan.lr * position.lr_scale * schedule.rate(position.step, self.plan.steps, self.train)
        loss, norm, tokens, good, self.feed.waited = 0.0, 0.0, 0, True, 0.0
        for part in self.task.parts:
            losses, tokens = self._gradient(part, loader)
            gradients = self._penalised(part)
            norm = self.ranks.clip(gradients, self.train.clip)  # here the host waits for the device, once
            loss, tokens = self._summed(losses, tokens)
            if self._accepted(part, loss, norm):
                self._update(part, gradients, lr)
            else:
                good = False
        self.average.update(position.step)
        position.step += 1
        position.tokens += tokens
        self._count(good)
        seconds = time.perf_counter() - start
        position.seconds += seconds
        return Stepped(position.step, loss, lr, norm, tokens, seconds, self._told(), self.feed.waited)

    def _gradient(self, part: str, loader: Loader) -> tuple[list[Tensor], int]:
        """The loss of each micro-batch, and all their tokens; the gradient lies in the masters. Cut until it fits."""
        while True:
            try:
                self._switch()
                fed = self.feed.step(loader, self.position.step, self.shape)
                with device.repeatable(self.device):
                    losses = self._backward(part, fed)
                if self.position.step + 1 < self.plan.steps and part == self.task.parts[-1]:
                    self.feed.ahead(loader, self.position.step + 1, self.shape)
                return losses, fed.tokens
            except (RuntimeError, MemoryError) as error:
                if not probe.exhausted(error):
                    raise
                self.ranks.refuse(error)
            self._split()  # here the failed step's tensors are let go of

    def _switch(self) -> None:
        """Run blocks compiled from the planned step on: a function of the step, never of a clock."""
        wanted = 0 <= self.plan.compiled_from <= self.position.step
        if wanted != self._compiled:
            self._compiled = wanted
            compiling.switch(self.net, wanted)

    def _backward(self, part: str, fed: Fed) -> list[Tensor]:
        """The gradient of sum_k total_k / count_k over all micro-batches; what each adds to that sum."""
        counts = self.ranks.total(fed.counts)
        self.masters.clear()
        self.masters.wake(self.optimizers[part].names)
        losses = []
        for total, loss in passes(self.task, self.net, fed.batches, counts, partial(self._begin, part), part):
            with self.masters.collecting():
                total.backward()
            losses.append(loss)
        return losses

    def _begin(self, part: str, micro: int) -> None:
        """Before a forward pass of a micro-batch: the same one drops the same again."""
        self._halt(part)
        ids = (self.position.step, micro, *self.ranks.ids)
        self.dropout.manual_seed(generator(self.seed, "dropout", *ids).initial_seed())

    def _summed(self, losses: list[Tensor], tokens: int) -> tuple[float, int]:
        """Loss and tokens of all micro-batches and ranks."""
        loss = 0.0
        for each in torch.stack(losses).tolist():
            loss += each
        sums = self.ranks.total({"loss": loss, "tokens": tokens})
        return sums["loss"], int(sums["tokens"])

    def _halt(self, part: str) -> None:
        """Leave a step only while it has changed nothing: before the first part is updated."""
        if part == self.task.parts[0] and self.halted():
            self.net.zero_grad(set_to_none=True)
            raise Halted

    def _penalised(self, part: str) -> Named:
        """The gradients of a part, complete, summed over the ranks, and with the penalties."""
        gradients = {name: self.masters.gradients.get(name) for name in self.optimizers[part].names}
        whole = {n: torch.zeros_like(self.masters.params[n]) if g is None else g for n, g in gradients.items()}
        self.ranks.reduce(whole.values())
        optim.penalise(whole, self.masters.params, self.train.l1, self.train.l2)
        return whole

    def _accepted(self, part: str, loss: float, norm: float) -> bool:
        """Whether the guard lets this step change the part; it remembers what it let pass."""
        window = self.position.window.setdefault(part, [])
        usual = [] if self.task.adversarial else window  # what one adversary wins the other loses: that is no spike
        if objection := guard.objection(usual, loss, norm):
            figures = {} if objection == "not_finite" else {"loss": loss, "norm": norm}
            self._tell(objection, step=self.position.step + 1, skipped=self.position.skipped + 1, **figures)
            return False
        guard.remember(window, loss, norm)
        return True

    def _update(self, part: str, gradients: Named, lr: float) -> None:
        self.position.updates[part] = self.position.updates.get(part, 0) + 1
        with torch.no_grad():
            self.optimizers[part].step(gradients, lr)
        self.masters.publish()

    # --- what goes wrong ---

    def _tell(self, kind: str, **facts: Any) -> None:
        self._incidents.append(Incident(kind, facts))

    def _told(self) -> tuple[Incident, ...]:
        told, self._incidents = tuple(self._incidents), []
        return told

    def _count(self, good: bool) -> None:
        """Skipped steps in a row, and the return to the last good state after too many of them."""
        position = self.position
        position.skipped_in_a_row = 0 if good else position.skipped_in_a_row + 1
        position.skipped += not good
        if position.skipped_in_a_row >= guard.PATIENCE:
            self._roll_back()

    def _roll_back(self) -> None:
        """Weights and optimizer as at the anchor, half the rate; the step, and with it the data, go on."""
        position = self.position
        if position.rollbacks == guard.ROLLBACKS:
            lr = f"{self.plan.lr * position.lr_scale:.3g}"
            raise UserError("E501", step=position.step, count=guard.PATIENCE, rollbacks=guard.ROLLBACKS, lr=lr)
        if (saved := self.recall(position.anchor)) is not None:
            self._load(saved.weights, saved.optimizer)
            position.window, position.updates = saved.position.window, saved.position.updates
        elif self.start is not None:
            self._load(self.start, {})
            position.window, position.updates = {}, {}
        # Otherwise the anchor is gone from the disk: the weights stay, which the skipped steps have not changed.
        self._set_counts()
        position.rollbacks, position.lr_scale = position.rollbacks + 1, position.lr_scale / 2
        position.skipped_in_a_row = 0
        self._tell("rolled_back", step=position.step, to=position.anchor, lr=self.plan.lr * position.lr_scale)

    def anchor(self) -> None:
        """The current step is about to be saved: in good health it becomes the state to return to."""
        if not self.position.skipped_in_a_row:
            self.position.anchor, self.start = self.position.step, None

    def _split(self) -> None:
        """After memory ran out: finer micro-batches from here on, which the checkpoints remember."""
        self.masters.clear()
        self.net.zero_grad(set_to_none=True)
        split.release()
        parts = split.finer(self.task, self.shape.rows, self.shape.accumulate)
        if parts is None:
            raise split.refusal(self.net, self.plan)
        self.position.accumulate = parts
        self._tell("split", step=self.position.step + 1, rows=self.shape.rows, accumulate=parts)

    # --- held-out rows ---

    def _evaluate(self, held_out: Loader | None) -> Evaluated:
        assert held_out is not None
        with self.average.lent():
            return self._looked(held_out)

    def _looked(self, held_out: Loader) -> Evaluated:
        start = time.perf_counter()
        self.masters.clear()  # a step has left its gradients
        metrics = self._measured(held_out)
        position, loss = self.position, next(iter(metrics.values()))
        reached = metrics[self.task.selects] if self.task.selects else 0.0
        ahead = position.best is None or (-reached, loss) < (-position.reached, position.best)
        better = math.isfinite(loss) and (ahead or self.task.adversarial)
        if better:
            position.best, position.reached, position.best_step, position.stale = loss, reached, position.step, 0
            if self.train.select == "best":
                self.best = None  # first: where it lies in memory, two at once would be the most that is held
                self.best = self.set_aside(self.masters.params)
        else:
            position.stale += self._saw_whole_samples()
        position.looked = position.step
        position.seconds += time.perf_counter() - start
        return Evaluated(position.step, metrics, better)

    def _measured(self, held_out: Loader) -> dict[str, float]:
        """Metrics of the plan's held-out rows, in batches that fit."""
        while True:
            try:
                rows = self.plan.rows * self.plan.accumulate if self.task.coupled == "vectors" else self.shape.rows
                rows = max(1, rows * self.plan.context // held_out.context)  # of as many tokens
                return evaluate(self.task, self.net, held_out, rows, self.plan.evaluate_rows, self.halted, self.ranks)
            except (RuntimeError, MemoryError) as error:
                if not probe.exhausted(error):
                    raise
                self.ranks.refuse(error)
            self._split()

    # --- state ---

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on bit by bit. The best weights are left out where they are the current ones."""
        optimizer = {
            f"{part}/{name}": tensor for part, o in self.optimizers.items() for name, tensor in o.state.items()
        } | self.average.state
        self.masters.clear()  # what is written finds their room
        best = self.best if self.position.best_step != self.position.step else None
        return Checkpoint(self.position, self.masters.restored(self.net), optimizer, best)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint of the same plan."""
        self.position = saved.position
        self._load(saved.weights, saved.optimizer)
        self._set_counts()
        if self.position.anchor:
            self.start = None
        if self.train.select == "best" and saved.position.best is not None:
            best = saved.best if saved.best is not None else self.average.within(saved.weights, saved.optimizer)
            self.best = self.set_aside({name: best[name].to(p.device) for name, p in self.masters.params.items()})

    def _load(self, weights: Mapping[str, Tensor], optimizer: Named) -> None:
        """Set the masters and the state of their optimizers; an empty state is that of the start."""
        for name, master in self.masters.params.items():
            master.copy_(weights[name])
        self.average.restore(weights, optimizer)
        self.masters.publish()
        for part, each in self.optimizers.items():
            if optimizer:
                each.restore({n.removeprefix(f"{part}/"): t for n, t in optimizer.items() if n.startswith(f"{part}/")})
            else:
                torch._foreach_zero_(list(each.state.values()))

    def _set_counts(self) -> None:
        for part, optimizer in self.optimizers.items():
            optimizer.step_count = self.position.updates.get(part, 0)

    def final_weights(self) -> dict[str, Tensor]:
        """The selected weights in fp32, which are the training's own from now on."""
        if self.best is None:
            return self.average.within(self.masters.restored(self.net), self.average.state)
        for name, master in self.masters.params.items():
            master.copy_(self.best[name])
        self.masters.publish()
        return self.masters.restored(self.net)


def rehearsal(request: Request, net: nn.Module, plan: Plan, ranks: Alone | None = None) -> Training:
    """The training of a plan at its dearest, of which a few steps are tried: all learns, and samples are whole."""
    train, short = rates.awake(request.train), replace(plan, steps=100)
    training = Training(request.task, net, train, short, 0, ranks, request.folder)
    training.feed.steps = 0
    return training


def prefix(part: str) -> str:
    """How the names of a part's parameters begin."""
    return "" if part == "model" else f"{part}."


def evaluate(
    task: Task, net: nn.Module, loader: Loader, rows: int, limit: int | None = None,
    halted: Callable[[], bool] = lambda: False, ranks: Alone | None = None,
) -> dict[str, float]:  # fmt: skip
    """Metrics over a split (or over `limit` fixed rows of it), as streaming sums.

    Raises:
        Halted: `halted` said so, which is asked before each batch.
    """
    sums: dict[str, Tensor] = {}
    training, where = net.training, next(net.parameters()).device
    net.eval()
    try:
        with torch.no_grad():
            for batch in loader.evaluation(rows, limit):
                if halted():
                    raise Halted
                for name, value in task.measure(net, placed(task.posed(batch), where)).items():
                    wide = torch.as_tensor(value).double().cpu()
                    sums[name] = sums[name] + wide if name in sums else wide
    finally:
        net.train(training)
    if ranks:
        sums = _summed(sums, ranks)
    return task.report({name: value if value.ndim else float(value) for name, value in sums.items()})


def _summed(sums: dict[str, Tensor], ranks: Alone) -> dict[str, Tensor]:
    """Sums by name, over the ranks."""
    flat = torch.cat([sums[name].flatten() for name in sorted(sums)]).tolist()
    total = ranks.total({f"{place:09d}": each for place, each in enumerate(flat)})
    parts = torch.tensor([total[name] for name in sorted(total)], dtype=torch.float64)
    cut = parts.split([sums[name].numel() for name in sorted(sums)])
    return {name: part.view(sums[name].shape) for name, part in zip(sorted(sums), cut, strict=True)}
