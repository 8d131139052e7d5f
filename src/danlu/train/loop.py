"""The one training loop, for every task: a generator of events that saves nothing and prints nothing itself."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from danlu.config import Train
from danlu.data.loader import Loader, Shape
from danlu.errors import UserError
from danlu.nn.dropout import use_generator
from danlu.randomness import generator
from danlu.tasks.task import Batch, Task
from danlu.train import optim, schedule
from danlu.train.checkpoint import Checkpoint, Position
from danlu.train.plan import Plan
from danlu.train.precision import DTYPES, Masters

PATIENCE = 5  # steps in a row whose gradient may be not finite


@dataclass(frozen=True)
class Stepped:
    """One optimizer step."""

    step: int
    loss: float
    lr: float
    norm: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """One look at the validation rows."""

    step: int
    metrics: dict[str, float]
    better: bool


Event = Stepped | Evaluated


class Training:
    """A training under way: the network, its masters, the optimizers of its parts, and its position."""

    def __init__(self, task: Task, net: nn.Module, train: Train, plan: Plan, seed: int):
        self.task, self.net, self.train, self.plan, self.seed = task, net, train, plan, seed
        self.masters = Masters(net, DTYPES[plan.precision])
        self.optimizers = {part: self._optimizer(part) for part in task.parts}
        self.dropout = torch.Generator()
        use_generator(net, self.dropout)
        self.position = Position()
        self.best: dict[str, Tensor] | None = None

    def _optimizer(self, part: str) -> optim.Optimizer:
        prefix = "" if part == "model" else f"{part}."
        params = {name: p for name, p in self.masters.params.items() if name.startswith(prefix)}
        return optim.OPTIMIZERS[self.plan.optimizer](params, self.train, self.plan.weight_decay)

    # --- the loop ---

    def events(self, loader: Loader, held_out: Loader | None) -> Iterator[Event]:
        """Train from the current position to the last step of the plan."""
        while self.position.step < self.plan.steps and not self._stale():
            yield self._step(loader)
            if held_out is not None and self.looks(self.position.step, held_out):
                yield self._evaluate(held_out)

    def _stale(self) -> bool:
        """Whether the last evaluations were no better; part of the position, so that a resumed training knows it."""
        return bool(self.train.stop_early) and self.position.stale >= (self.train.stop_early or 0)

    def looks(self, step: int, held_out: Loader | None) -> bool:
        """Whether an evaluation follows this step."""
        return (
            held_out is not None
            and len(held_out) > 0
            and (step % self.plan.evaluate_every == 0 or step == self.plan.steps)
        )

    def _step(self, loader: Loader) -> Stepped:
        start, position, plan = time.perf_counter(), self.position, self.plan
        shape = Shape(plan.rows, plan.accumulate)
        batches = [self._batch(loader, micro, shape) for micro in range(plan.accumulate)]
        lr = plan.lr * schedule.rate(position.step, plan.steps, self.train)
        loss, norm = 0.0, 0.0
        for part in self.task.parts:
            loss, norm = self._update(part, batches, lr)
        position.step += 1
        tokens = int(sum((batch["segment_ids"] > 0).sum() for batch in batches))
        position.tokens += tokens
        seconds = time.perf_counter() - start
        position.seconds += seconds
        return Stepped(position.step, loss, lr, norm, tokens, seconds)

    def _batch(self, loader: Loader, micro: int, shape: Shape) -> Batch:
        batch = loader.train(self.position.step, micro, shape)
        return self.task.corrupt(batch, generator(self.seed, "corrupt", self.position.step, micro))

    def _update(self, part: str, batches: list[Batch], lr: float) -> tuple[float, float]:
        """The gradient of sum_k total_k / count_k over all micro-batches, clipped and applied to one part."""
        counts: dict[str, float] = {}
        for batch in batches:
            for name, value in self.task.counts(batch).items():
                counts[name] = counts.get(name, 0.0) + float(value)
        self.masters.clear()
        loss = 0.0
        for micro, batch in enumerate(batches):
            self.dropout.manual_seed(generator(self.seed, "dropout", self.position.step, micro).initial_seed())
            terms = self.task.loss(self.net, batch, part)
            total = sum((value / max(counts[name], 1.0) for name, value in terms.items()), torch.zeros(()))
            total.backward()
            self.masters.collect()
            loss += float(total.detach())
        return loss, self._apply(self.optimizers[part], lr)

    def _apply(self, optimizer: optim.Optimizer, lr: float) -> float:
        gradients = {name: self.masters.gradients[name] for name in optimizer.names if name in self.masters.gradients}
        for name in optimizer.names:
            gradients.setdefault(name, torch.zeros_like(self.masters.params[name]))
        optim.penalise(gradients, self.masters.params, self.train.l1, self.train.l2)
        norm = optim.clip(gradients.values(), self.train.clip)
        if not math.isfinite(norm):
            self._skip()
            return norm
        self.position.skipped_in_a_row = 0
        with torch.no_grad():
            optimizer.step(gradients, lr)
        self.masters.publish()
        return norm

    def _skip(self) -> None:
        """A gradient that is not finite changes nothing; several in a row end the training."""
        self.position.skipped += 1
        self.position.skipped_in_a_row += 1
        if self.position.skipped_in_a_row >= PATIENCE:
            raise UserError("E501", step=self.position.step, count=PATIENCE, lr=f"{self.plan.lr:g}")

    def _evaluate(self, held_out: Loader) -> Evaluated:
        start = time.perf_counter()
        metrics = evaluate(self.task, self.net, held_out, self.plan.rows, self.plan.evaluate_rows)
        position, loss = self.position, next(iter(metrics.values()))
        better = math.isfinite(loss) and (position.best is None or loss < position.best)
        if better:
            position.best, position.best_step, position.stale = loss, position.step, 0
            if self.train.select == "best":
                self.best = {name: tensor.clone() for name, tensor in self.masters.restored(self.net).items()}
        else:
            position.stale += 1
        position.seconds += time.perf_counter() - start
        return Evaluated(position.step, metrics, better)

    # --- state ---

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on bit by bit. The best weights are left out where they are the current ones."""
        optimizer = {
            f"{part}/{name}": tensor for part, o in self.optimizers.items() for name, tensor in o.state.items()
        }
        best = self.best if self.position.best_step != self.position.step else None
        return Checkpoint(self.position, self.masters.restored(self.net), optimizer, best)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint of the same plan."""
        self.position = saved.position
        for name, master in self.masters.params.items():
            master.copy_(saved.weights[name])
        self.masters.publish()
        for part, optimizer in self.optimizers.items():
            optimizer.restore(
                {n.removeprefix(f"{part}/"): t for n, t in saved.optimizer.items() if n.startswith(f"{part}/")}
            )
            optimizer.step_count = saved.position.step - saved.position.skipped
        if self.train.select == "best" and saved.position.best is not None:
            self.best = saved.best if saved.best is not None else saved.weights

    def final_weights(self) -> dict[str, Tensor]:
        """The selected weights in fp32."""
        return self.best if self.best is not None else self.masters.restored(self.net)


def evaluate(task: Task, net: nn.Module, loader: Loader, rows: int, limit: int | None = None) -> dict[str, float]:
    """Metrics over a split (or over `limit` fixed rows of it), as streaming sums."""
    sums: dict[str, Any] = {}
    training = net.training
    net.eval()
    with torch.no_grad():
        for batch in loader.evaluation(rows, limit):
            for name, value in task.measure(net, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value)
    net.train(training)
    return task.report(sums)
