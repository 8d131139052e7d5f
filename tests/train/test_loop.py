"""The loop is exact: a split step is the whole step, a resumed training the uninterrupted one, a bad step none."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from danlu import adapt, files
from danlu.config import Train
from danlu.data.loader import Loader, Shape
from danlu.errors import UserError
from danlu.nn.dropout import Dropout
from danlu.randomness import stream
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch
from danlu.train import checkpoint
from danlu.train.events import Evaluated, Stepped
from danlu.train.loop import Training, evaluate
from danlu.train.session import METRICS, Interrupted, Result, fit
from tests.train.tiny import PLAN, Processor, Watch, loaders, log, network, request, same, training

Weights = dict[str, Tensor]


pytestmark = pytest.mark.usefixtures("no_sync")


def relative(a: Weights, b: Weights) -> float:
    return max(float((a[name] - b[name]).norm() / b[name].norm()) for name in b)


def copied(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}


# --- the loss of a step ---


def stepped(loader: Loader, steps: int, **settings: Any) -> Training:
    made = training(Train(clip=0.0, warmup=0.0), optimizer="sgd", lr=0.1, **settings)
    events = made.events(loader, None)
    for _ in range(steps):
        next(events)
    return made


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_a_split_step_is_the_whole_step(accumulate: int, loader: Loader) -> None:
    """sum of totals / sum of counts, though the micro-batches count differently."""
    whole, split = (stepped(loader, 1, rows=8 // n, accumulate=n) for n in (1, accumulate))
    assert relative(split.masters.gradients, whole.masters.gradients) < 1e-6
    whole, split = (stepped(loader, 5, rows=8 // n, accumulate=n) for n in (1, accumulate))
    assert relative(split.final_weights(), whole.final_weights()) < 1e-6
    micro = [loader.train(0, i, Shape(8 // accumulate, accumulate)) for i in range(accumulate)]
    assert len({int((batch["labels"] != -100).sum()) for batch in micro}) > 1


class MeanOfMeans(LanguageModeling):
    """The mistake of 2024: every micro-batch divided by its own count."""

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        return {"loss": super().loss(net, batch, part)["loss"] / self.counts(batch)["loss"]}


def test_the_comparison_would_see_a_mean_of_means(loader: Loader) -> None:
    whole, split = (
        stepped(loader, 1, task=MeanOfMeans(Processor()), rows=8 // n, accumulate=n)  # type: ignore[arg-type]
        for n in (1, 4)
    )
    sizes = [sum(float(g.norm()) for g in each.masters.gradients.values()) for each in (whole, split)]
    scaled = {name: g * (sizes[0] / sizes[1]) for name, g in split.masters.gradients.items()}
    assert relative(scaled, whole.masters.gradients) > 1e-3


def test_the_loss_reported_is_the_mean_over_what_counts(loader: Loader) -> None:
    made = training(lr=1e-9)
    event = next(iter(made.events(loader, None)))
    batches = [loader.train(0, micro, Shape(4, 2)) for micro in range(2)]
    net, total, count = network(), 0.0, 0
    for batch in batches:
        kept = batch["labels"] != -100
        logits = net(batch)[kept].detach()
        total += float(nn.functional.cross_entropy(logits, batch["labels"][kept], reduction="sum"))
        count += int(kept.sum())
    assert isinstance(event, Stepped)
    assert event.loss == pytest.approx(total / count, rel=1e-5)
    assert event.tokens == sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)


def test_it_learns(loader: Loader, held_out: Loader) -> None:
    made = training(Train(), lr=0.02, steps=60, evaluate_every=60)
    before = evaluate(made.task, made.net, held_out, 4)
    last = [event for event in made.events(loader, held_out) if isinstance(event, Evaluated)][-1]
    assert before["loss"] == pytest.approx(math.log(48), abs=0.3)
    assert last.metrics["loss"] < before["loss"] - 0.4


def test_looking_at_held_out_rows_changes_nothing(loader: Loader, held_out: Loader) -> None:
    plain, watched = (training(Train(select="last"), net=network(0.2), evaluate_every=1) for _ in range(2))
    list(plain.events(loader, None))
    assert sum(isinstance(event, Evaluated) for event in watched.events(loader, held_out)) == PLAN.steps
    assert same(plain.final_weights(), watched.final_weights())
    assert watched.net.training


def test_held_out_rows_are_measured_without_dropout(held_out: Loader) -> None:
    dropping, plain = training(net=network(0.5)), training(net=network(0.0))
    plain.net.load_state_dict(dropping.net.state_dict())
    found = evaluate(dropping.task, dropping.net, held_out, 3)
    assert found == evaluate(plain.task, plain.net, held_out, 3)
    assert dropping.net.training


def test_the_seed_decides_dropout_and_nothing_else_does(loader: Loader) -> None:
    first, second = (training(net=network(0.2)) for _ in range(2))
    torch.rand(7, generator=torch.Generator().manual_seed(1))
    list(first.events(loader, None))
    list(second.events(loader, None))
    other = Training(first.task, network(0.2), Train(), PLAN, seed=10)
    list(other.events(loader, None))
    assert same(first.final_weights(), second.final_weights())
    assert not same(first.final_weights(), other.final_weights())


class Noting(LanguageModeling):
    """Remembers what dropout would draw first in each micro-batch."""

    drawn: list[int]

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        source = next(module.generator for module in net.modules() if isinstance(module, Dropout))
        self.drawn.append(int(torch.randint(2**62, (), generator=source.clone_state())))
        return super().loss(net, batch, part)


def test_every_step_and_micro_batch_drops_something_else(loader: Loader) -> None:
    task = Noting(Processor())  # type: ignore[arg-type]
    task.drawn = []
    list(training(task=task, net=network(0.2)).events(loader, None))
    assert len(set(task.drawn)) == len(task.drawn) == PLAN.steps * PLAN.accumulate


# --- killed and resumed ---


def whole(
    data: Path, out: Path, *, dropout: float = 0.1, task: Any = None, train: Train | None = None, **plan: Any
) -> Result:
    """One training from end to end in `out`, or from what is there on."""
    out.mkdir(exist_ok=True)
    replace(PLAN, dropout=dropout, **plan).write(out)
    return fit(request(data, train, task), network(dropout), out, 9, Watch())


def broken_off(
    data: Path, out: Path, step: int, *, dropout: float = 0.1, train: Train | None = None, **plan: Any
) -> None:
    """The same, killed after the log of `step` and before anything else."""

    def kill(done: float) -> None:
        if done == step:
            raise KeyboardInterrupt

    out.mkdir(exist_ok=True)
    replace(PLAN, dropout=dropout, **plan).write(out)
    with pytest.raises(KeyboardInterrupt):
        fit(request(data, train), network(dropout), out, 9, Watch(kill))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumed_at_every_step_is_uninterrupted(optimizer: str, precision: str, data: Path, tmp_path: Path) -> None:
    settings = {"optimizer": optimizer, "precision": precision}
    straight = whole(data, tmp_path / "straight", **settings)
    assert straight.facts["best_step"] > 0
    for step in range(1, PLAN.steps + 1):
        out = tmp_path / f"killed-{step}"
        broken_off(data, out, step, **settings)
        resumed = whole(data, out, **settings)
        assert same(resumed.weights, straight.weights), f"killed at step {step}"
        assert log(out) == log(tmp_path / "straight"), f"killed at step {step}"
        assert [entry["step"] for entry in log(out) if "loss" in entry] == list(range(1, PLAN.steps + 1))


@pytest.mark.parametrize("select", ["best", "last"])
def test_killed_again_and_again(select: Any, data: Path, tmp_path: Path) -> None:
    """High rates make the loss rise again, so that the best weights are old ones that every resumption must carry."""
    train, settings = Train(select=select, schedule="constant"), {"lr": 8.0, "save_every": 1, "evaluate_every": 1}
    straight = whole(data, tmp_path / "straight", train=train, **settings)
    assert straight.facts["best_step"] < PLAN.steps
    for step in range(2, PLAN.steps + 1):
        broken_off(data, tmp_path / "killed", step, train=train, **settings)
    resumed = whole(data, tmp_path / "killed", train=train, **settings)
    assert same(resumed.weights, straight.weights)
    assert log(tmp_path / "killed") == log(tmp_path / "straight")
    assert resumed.facts["best_step"] == straight.facts["best_step"]


class Crash(BaseException):
    """A process that ends in the middle of a call."""


def test_killed_at_every_call_to_the_disk(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = whole(data, tmp_path / "straight", steps=4)
    calls = {"left": -1}

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls["left"] -= 1
            if calls["left"] == 0:
                raise Crash
            return real(*arguments)

        return call

    for name in ("_open", "_write", "_fsync", "_rename", "_sync_folder"):
        monkeypatch.setattr(files, name, counted(getattr(files, name)))
    crashed, number = 0, 3
    while True:
        out = tmp_path / f"killed-{number}"
        out.mkdir()
        calls["left"] = number
        try:
            whole(data, out, steps=4)
        except Crash:
            crashed += 1
        else:
            break
        calls["left"] = -1
        assert same(whole(data, out, steps=4).weights, straight.weights), f"call {number}"
        number += 9
    assert crashed > 6


def test_a_finished_training_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    first = whole(data, tmp_path / "out")
    again = whole(data, tmp_path / "out")
    assert same(first.weights, again.weights)
    assert [entry["step"] for entry in log(tmp_path / "out") if "loss" in entry] == list(range(1, PLAN.steps + 1))


def test_a_damaged_checkpoint_is_named_and_an_older_one_used(data: Path, tmp_path: Path) -> None:
    straight, out = whole(data, tmp_path / "straight", save_every=1), tmp_path / "out"
    broken_off(data, out, 6, save_every=1)
    found = sorted((out / "checkpoints").glob("step-*"))
    assert [folder.name for folder in found] == ["step-0000004", "step-0000005"]  # the last of the peak is kept
    path = found[-1] / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    view = Watch()
    replace(PLAN, save_every=1).write(out)
    resumed = fit(request(data), network(0.1), out, 9, view)
    assert same(resumed.weights, straight.weights)
    assert any("step-0000005" in line and "optimizer.safetensors" in line for line in view.lines)
    assert log(out) == log(tmp_path / "straight")


def test_no_whole_checkpoint_is_an_error(data: Path, tmp_path: Path) -> None:
    broken_off(data, tmp_path / "out", 3)
    for path in (tmp_path / "out" / "checkpoints").rglob("weights.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError) as problem:
        whole(data, tmp_path / "out")
    assert (problem.value.code, problem.value.exit) == ("E307", 4)


def test_a_line_cut_in_half_by_a_kill_is_dropped(data: Path, tmp_path: Path) -> None:
    whole(data, tmp_path / "straight")
    broken_off(data, tmp_path / "out", 5)
    with (tmp_path / "out" / METRICS).open("a") as file:
        file.write('{"step": 6, "lo')
    whole(data, tmp_path / "out")
    assert log(tmp_path / "out") == log(tmp_path / "straight")


def test_one_checkpoint_is_left_at_the_end(data: Path, tmp_path: Path) -> None:
    whole(data, tmp_path / "out")
    assert [folder.name for folder in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-0000004"]


# --- asked to stop ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [3, 5])  # with and without an evaluation after the step
def test_a_signal_saves_and_leaves(number: signal.Signals, step: int, data: Path, tmp_path: Path) -> None:
    straight, out = whole(data, tmp_path / "straight"), tmp_path / "out"
    out.mkdir()
    PLAN.write(out)
    before = signal.getsignal(number)
    view = Watch(lambda done: os.kill(os.getpid(), number) if done == step else None)
    with pytest.raises(Interrupted, match=number.name):
        fit(request(data), network(0.1), out, 9, view)
    assert signal.getsignal(number) is before
    saved, _ = checkpoint.newest(out / "checkpoints")
    assert saved is not None
    assert saved.position.step == step
    assert same(whole(data, out).weights, straight.weights)
    assert log(out) == log(tmp_path / "straight")


def test_the_second_signal_leaves_at_once(data: Path, tmp_path: Path) -> None:
    def twice(done: float) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    PLAN.write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(request(data), network(0.1), tmp_path, 9, Watch(twice))
    saved, _ = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.position.step == 2


@pytest.mark.parametrize(("peak", "first"), [(1e-9, 100), (1e15, 0)])
def test_no_step_is_said_to_be_faster_than_the_peak(peak: float, first: int, data: Path, tmp_path: Path) -> None:
    """One that is shows that the peak was measured in a busy moment; the plan stays as it was."""
    said = list[int]()

    class Notes(Watch):
        def progress(self, done: float, total: float, note: str) -> None:
            said.append(int(note.split("% of this machine's peak")[0].split()[-1]))

    made = replace(PLAN, step_gflop=1.0, peak_gflops=peak)
    made.write(tmp_path)
    assert fit(request(data), network(), tmp_path, 9, Notes()).plan == made
    assert said[0] == first
    assert len(said) == PLAN.steps
    assert max(said) <= 100


def test_the_deadline_saves_and_leaves(data: Path, tmp_path: Path) -> None:
    PLAN.write(tmp_path)
    with pytest.raises(Interrupted):
        fit(request(data, Train(deadline="0.0000001s")), network(0.1), tmp_path, 9, Watch())
    saved, _ = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.position.step == 1


# --- the best weights, and when to stop ---


class Scripted(LanguageModeling):
    """Held-out losses as told, one after the other."""

    def __init__(self, losses: list[float]):
        super().__init__(Processor())  # type: ignore[arg-type]
        self.losses: Iterator[float] = iter(losses)

    def report(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": next(self.losses)}


SCRIPTS = {
    "the best is selected": ([3.0, 2.0, 2.5, 1.9, 2.4, 2.4, 2.4, 2.4], 4, None),
    "never one that is not a number": ([math.nan, 3.0, math.nan, math.inf, 4.0, math.nan, 5.0, math.nan], 2, None),
    "equal is not better": ([3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], 2, None),
    "two that are no better end it": ([3.0, 2.0, 2.5, 2.6, 1.0, 1.0, 1.0, 1.0], 2, 4),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_selection(name: str, loader: Loader, held_out: Loader) -> None:
    losses, best, last = SCRIPTS[name]
    train = Train(stop_early=2) if last else Train()
    made, states = training(train, task=Scripted(losses), evaluate_every=1), {}
    for event in made.events(loader, held_out):
        if isinstance(event, Evaluated):
            states[event.step] = copied(made.masters.restored(made.net))
            assert event.better == (made.position.best_step == event.step)
    assert (made.position.best_step, made.position.step) == (best, last or PLAN.steps)
    assert same(made.final_weights(), states[best])
    assert not same(states[best], states[made.position.step]) or best == made.position.step


class Aiming(Scripted):
    """A task of which the accuracy counts, as told."""

    selects = "accuracy"

    def __init__(self, losses: list[float], accuracies: list[float]):
        super().__init__(losses)
        self.accuracies = iter(accuracies)

    def report(self, sums: dict[str, float]) -> dict[str, float]:
        return super().report(sums) | {"accuracy": next(self.accuracies)}


def test_a_task_that_aims_at_a_metric_selects_by_it_and_by_the_loss_among_equals(
    loader: Loader, held_out: Loader
) -> None:
    losses, accuracies = [1.0, 2.0, 2.5, 2.2, 1.9, 3.0, 0.5, 0.4], [0.5, 0.6, 0.9, 0.9, 0.8, 0.9, 0.1, 0.2]
    made = training(task=Aiming(losses, accuracies), evaluate_every=1)
    list(made.events(loader, held_out))
    assert (made.position.best_step, made.position.best, made.position.reached) == (4, 2.2, 0.9)


def test_the_last_can_be_selected(loader: Loader, held_out: Loader) -> None:
    made = training(Train(select="last"), task=Scripted([1.0] + [2.0] * 7), evaluate_every=1)
    list(made.events(loader, held_out))
    assert made.position.best_step == 1
    assert same(made.final_weights(), made.masters.restored(made.net))


def test_a_training_stopped_early_stays_stopped_when_resumed(data: Path, tmp_path: Path) -> None:
    settings = {"evaluate_every": 1, "save_every": 1}
    train = Train(stop_early=2)
    first = whole(data, tmp_path, task=Scripted([3.0, 2.0, 2.5, 2.6]), train=train, stable_step=8, **settings)
    again = whole(data, tmp_path, task=Scripted([1.0] * 8), train=train, stable_step=8, **settings)
    assert (first.facts["steps"], again.facts["steps"], again.facts["best_step"]) == (4, 4, 2)
    assert same(first.weights, again.weights)


# --- what is frozen ---


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "adapters", [[{"kind": "freeze"}], [{"kind": "freeze", "keep_last": 1}], [{"kind": "lora", "rank": 2}]]
)
def test_what_is_frozen_does_not_change(adapters: list[dict[str, Any]], precision: str, loader: Loader) -> None:
    net = network()
    adapt.apply(net, adapters, seed=1)
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    before = copied({name: p.detach() for name, p in net.named_parameters()})
    made = training(Train(l1=0.1, l2=0.1, warmup=0.0), net=net, precision=precision)
    list(made.events(loader, None))
    after = made.final_weights()
    assert frozen
    assert set(made.masters.params) == set(before) - frozen
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) == (name in frozen), name
        assert after[name].dtype == torch.float32


def test_bf16_learns_in_fp32(loader: Loader) -> None:
    """Steps too small for bf16 add up in the masters; the network computes with their rounding."""
    made = training(Train(warmup=0.0, schedule="constant"), precision="bf16", lr=1e-5, optimizer="sgd", steps=30)
    start = copied(made.masters.params)
    list(made.events(loader, None))
    name = "core.blocks.0.mlp.inner.up.weight"
    assert not torch.equal(made.masters.params[name], start[name])
    working = dict(made.net.named_parameters())[name]
    assert working.dtype == torch.bfloat16
    assert torch.equal(working, made.masters.params[name].bfloat16())
    assert made.final_weights()[name].dtype == torch.float32


def test_the_order_of_rows_is_that_of_the_seed(loader: Loader) -> None:
    shape, rows = Shape(4, 2), []
    for position in range(2 * len(loader)):
        step, rest = divmod(position, 8)
        batch = loader.train(step, rest // 4, shape)
        rows.append(batch["input_ids"][rest % 4].numpy().tobytes())
    first, second = rows[: len(loader)], rows[len(loader) :]
    expected = stream(5, "order", 0).permutation(len(loader))
    assert first == [loader.assemble([int(i)])["input_ids"][0].numpy().tobytes() for i in expected]
    assert sorted(first) == sorted(second)
    assert first != second


def test_the_time_spent_on_batches_is_counted(data: Path, monkeypatch: Any) -> None:
    made, (loader, _) = training(), loaders(data)
    assemble = loader.assemble
    monkeypatch.setattr(loader, "assemble", lambda rows: (time.sleep(0.05), assemble(rows))[1])
    event = next(iter(made.events(loader, None)))
    assert isinstance(event, Stepped)
    assert 0.1 <= event.waited <= event.seconds  # two micro-batches
