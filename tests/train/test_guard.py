"""Bad steps change nothing, too many of them lead back, a signal is heard anywhere: and all of it survives a kill."""

import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from danlu import files, messages
from danlu.config import Train
from danlu.data.loader import Loader, Shape
from danlu.errors import UserError
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch
from danlu.train import checkpoint, guard
from danlu.train.events import Incident, Stepped
from danlu.train.log import said
from danlu.train.loop import Training
from danlu.train.session import CHECKPOINTS, Interrupted, Result, fit
from tests.train.tiny import PLAN, Processor, Watch, log, network, request, same, training

Weights = dict[str, Tensor]
LONG = replace(PLAN, steps=16, save_every=2, evaluate_every=5, stable_step=8)


pytestmark = pytest.mark.usefixtures("no_sync")


class Poisoned(LanguageModeling):
    """The gradients of some steps are multiplied: which ones depends on their tokens alone, as bad rows would."""

    def __init__(self, loader: Loader, factors: dict[int, float]):
        super().__init__(Processor())  # type: ignore[arg-type]
        self.bad = {
            self._mark(loader.train(step, micro, Shape(PLAN.rows, PLAN.accumulate))): factor
            for step, factor in factors.items()
            for micro in range(PLAN.accumulate)
        }

    def _mark(self, batch: Batch) -> bytes:
        return batch["input_ids"].numpy().tobytes()

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        return {"loss": super().loss(net, batch, part)["loss"] * self.bad.get(self._mark(batch), 1.0)}


def nan(*steps: int) -> dict[int, float]:
    return dict.fromkeys(steps, math.nan)


def state(made: Training) -> Weights:
    moments = {f"{part}/{name}": t for part, o in made.optimizers.items() for name, t in o.state.items()}
    return {name: t.clone() for name, t in (made.masters.restored(made.net) | moments).items()}


def run(data: Path, out: Path, task: Any, view: Watch | None = None, train: Train | None = None) -> Result:
    """A training in `out`, or what is left of it."""
    out.mkdir(exist_ok=True)
    LONG.write(out)
    return fit(request(data, train, task), network(0.1), out, 9, view or Watch())


# --- what is a spike ---


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("count", [64, 128])
def test_a_spike_is_six_deviations_above_the_mean(count: int, spread: float) -> None:
    random = np.random.Generator(np.random.PCG64(count))
    values = np.stack([3 + spread * random.standard_normal(count), 0.7 + spread / 4 * random.random(count)], axis=1)
    logs, floor = np.log(values), np.array([0.02, np.log(3) / 6])
    highest, mean = np.exp(logs.mean(0) + 6 * np.maximum(logs.std(0, ddof=1), floor)), values.mean(0)
    window = [[float(a), float(b)] for a, b in values]
    below, above = highest * (1 - 1e-9), highest * (1 + 1e-9)
    assert guard.objection(window, below[0], below[1]) == ""
    assert guard.objection(window, above[0], below[1]) == "spike"
    assert guard.objection(window, below[0], above[1]) == "spike"
    assert guard.objection(window, mean[0] / 2, mean[1] / 2) == ""  # better is never a spike
    assert guard.objection(window[:63], above[0] * 10, above[1] * 10) == ""  # too few to judge by


def test_rows_that_are_hard_among_rows_that_are_known_are_no_spikes() -> None:
    """Steps of a classifier that is right but for a few rows: losses over orders of magnitude, heavy to the right."""
    random = np.random.Generator(np.random.PCG64(1))
    window, skipped = list[list[float]](), 0
    for loss in np.exp(random.normal(-5, 1.2, 20_000)).tolist():
        skipped += bool(guard.objection(window, loss, 1.0))
        guard.remember(window, loss, 1.0)
    assert skipped == 0
    assert guard.objection(window, 30.0, 1.0) == "spike"


@pytest.mark.parametrize("losses", [[0.0] * 100, [1e-20, 0.0] * 50, [1e300, 1e-3] * 50])
def test_losses_without_a_logarithm_are_no_spikes_and_stop_nothing(losses: list[float]) -> None:
    window = [[loss, 1.0] for loss in losses]
    assert guard.objection(window, losses[0], 1.0) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_taken(value: float) -> None:
    assert guard.objection([], value, 1.0) == guard.objection([], 1.0, value) == "not_finite"


def test_only_the_last_good_steps_are_remembered() -> None:
    window: guard.Window = []
    for step in range(300):
        guard.remember(window, float(step), 1.0)
    assert [loss for loss, _ in window] == [float(step) for step in range(300 - 128, 300)]


def test_a_real_training_has_no_spikes(loader: Loader) -> None:
    made = training(Train(), lr=0.02, steps=150)
    assert not [event for event in made.events(loader, None) if event.incidents]
    assert len(made.position.window["model"]) == 128


# --- bad steps ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_gradient_that_is_not_finite_changes_nothing(optimizer: str, value: float, loader: Loader) -> None:
    made = training(task=Poisoned(loader, {2: value}), optimizer=optimizer)
    events, counts = made.events(loader, None), []
    states = [state(made)]
    for _ in range(4):
        next(events)
        states.append(state(made))
        counts.append((made.position.step, made.position.skipped, made.optimizers["model"].step_count))
    assert counts == [(1, 0, 1), (2, 0, 2), (3, 1, 2), (4, 1, 3)]
    assert same(states[3], states[2])
    assert not same(states[4], states[3])
    assert all(torch.isfinite(tensor).all() for tensor in states[4].values())


def test_a_spike_changes_nothing_and_does_not_hide_the_next(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LEAST", 4)
    made = training(task=Poisoned(loader, {5: 30.0, 6: 30.0}))
    told, states = [], [state(made)]
    for event in made.events(loader, None):
        told.append([each.kind for each in event.incidents])
        states.append(state(made))
    assert told == [[], [], [], [], [], ["spike"], ["spike"], []]
    assert same(states[7], states[5])
    assert not same(states[8], states[7])
    assert max(loss for loss, _ in made.position.window["model"]) < 5
    monkeypatch.setattr(guard, "LEAST", 1000)  # what the guard kept out
    unguarded = training(task=Poisoned(loader, {5: 30.0, 6: 30.0}))
    assert not [event for event in unguarded.events(loader, None) if event.incidents]
    assert not same(unguarded.final_weights(), made.final_weights())


def test_four_in_a_row_lead_nowhere(loader: Loader) -> None:
    made = training(task=Poisoned(loader, nan(0, 1, 2, 3, 5, 6)))
    list(made.events(loader, None))
    position = made.position
    assert (position.step, position.skipped, position.skipped_in_a_row, position.rollbacks) == (8, 6, 0, 0)
    assert position.lr_scale == 1.0


# --- back to the last good state ---


def test_five_in_a_row_lead_back_to_the_last_good_checkpoint(loader: Loader, data: Path, tmp_path: Path) -> None:
    """The twin is taken back by hand: what was saved after step 6, with the data from step 12 on at half the rate."""
    view, task = Watch(), Poisoned(loader, nan(7, 8, 9, 10, 11))
    led = run(data, tmp_path / "led", task, view, Train(select="last"))

    twin = Training(LanguageModeling(Processor()), network(0.1), Train(select="last"), LONG, seed=9)  # type: ignore[arg-type]
    events, saved = twin.events(loader, None), {}
    for _ in range(7):
        next(events)
        saved[twin.position.step] = state(twin), twin.optimizers["model"].step_count
    kept, count = saved[6]
    for name, master in twin.masters.params.items():
        master.copy_(kept[name])
    for name, tensor in twin.optimizers["model"].state.items():
        tensor.copy_(kept[f"model/{name}"])
    twin.optimizers["model"].step_count = count
    twin.position.step, twin.position.lr_scale = 12, 0.5
    losses = [event.loss for event in events if isinstance(event, Stepped)]

    assert same(led.weights, twin.final_weights())
    assert [entry["loss"] for entry in log(tmp_path / "led") if "loss" in entry][12:] == losses
    assert (led.facts["rollbacks"], led.facts["skipped_steps"], led.facts["steps"]) == (1, 5, 16)
    assert [line for line in view.lines if "back to the weights of step 6" in line and "after step 12" in line]
    assert sum("skipped: its gradient is not finite" in line for line in view.lines) == 5
    told = {entry["step"]: [each["kind"] for each in entry.get("incidents", [])] for entry in log(tmp_path / "led")}
    assert told[8] == ["not_finite"]
    assert next(entry for entry in log(tmp_path / "led") if entry["step"] == 8)["loss"] is None
    assert told[12] == ["not_finite", "rolled_back"]
    assert told[13] == []


def test_weights_that_exploded_are_taken_back_to_the_start(loader: Loader) -> None:
    """Nothing is saved yet, as in the first minute of a training with too high a rate."""
    made = training(
        Train(clip=0.0, warmup=0.0), task=Poisoned(loader, {1: 1e18}), optimizer="sgd", lr=0.1, steps=20, stable_step=20
    )
    start, events = state(made), made.events(loader, None)
    next(events)
    next(events)
    assert max(float(p.abs().max()) for p in made.masters.params.values()) > 1e10
    kinds = [[each.kind for each in next(events).incidents] for _ in range(5)]
    assert kinds == [["not_finite"]] * 4 + [["not_finite", "rolled_back"]]
    assert same(state(made), start)
    assert (made.position.lr_scale, made.optimizers["model"].step_count) == (0.5, 0)
    list(events)
    assert all(torch.isfinite(p).all() for p in made.final_weights().values())
    assert made.position.rollbacks == 1


def test_the_fourth_time_ends_the_training(loader: Loader, data: Path, tmp_path: Path) -> None:
    made = training(task=Poisoned(loader, nan(*range(1, 40))), steps=40)
    events = made.events(loader, None)
    with pytest.raises(UserError) as problem:
        list(events)
    assert (problem.value.code, problem.value.exit, made.position.step) == ("E501", 6, 21)
    assert (made.position.rollbacks, made.position.lr_scale) == (3, 0.125)
    for language in messages.LANGUAGES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DANLU_LANG", language)
            assert "21" in problem.value.render()
            assert "0.00125" in problem.value.render()


def timeless(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if "second" not in name and name != "waiting_for_data"}


PATHS = {
    "a return to a checkpoint": nan(3, 7, 8, 9, 10, 11),
    "two returns": nan(2, 3, 4, 5, 6, 9, 10, 11, 12, 13),
    "a return to the start": nan(0, 1, 2, 3, 4),
    "spikes": {6: 40.0, 9: 40.0, 10: 40.0, 11: 40.0, 12: 40.0, 13: 40.0},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * name.startswith("a return")) for name in PATHS]
)
def test_killed_around_a_return_is_uninterrupted(
    name: str, loader: Loader, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LEAST", 4)
    straight = run(data, tmp_path / "straight", Poisoned(loader, PATHS[name]))
    assert straight.facts["rollbacks"] == (2 if name == "two returns" else 1)
    for step in range(1, LONG.steps):
        out, asked = tmp_path / str(step), step % 2 == len(name) % 2  # killed and asked to stop in turns

        def stop(done: float, step: int = step, asked: bool = asked) -> None:
            if done == step and asked:
                os.kill(os.getpid(), signal.SIGTERM)
            elif done == step:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted if asked else KeyboardInterrupt):
            run(data, out, Poisoned(loader, PATHS[name]), Watch(stop))
        resumed = run(data, out, Poisoned(loader, PATHS[name]))
        assert same(resumed.weights, straight.weights), step
        assert log(out) == log(tmp_path / "straight"), step
        assert timeless(resumed.facts) == timeless(straight.facts), step


def test_a_lost_checkpoint_leaves_the_weights_as_they_are(loader: Loader, data: Path, tmp_path: Path) -> None:
    def lose(done: float) -> None:
        if done == 9:
            files.remove(checkpoint.folder_of(tmp_path / CHECKPOINTS, 6))

    found = run(data, tmp_path, Poisoned(loader, nan(7, 8, 9, 10, 11)), Watch(lose))
    assert (found.facts["rollbacks"], found.facts["steps"]) == (1, 16)
    assert all(torch.isfinite(each).all() for each in found.weights.values())


INCIDENTS = [
    (Incident("not_finite", {"step": 7, "skipped": 2}), ["7", "2"]),
    (Incident("spike", {"step": 7, "skipped": 2, "loss": 9.25, "norm": 31.5}), ["7", "9.25", "31.5", "128"]),
    (Incident("rolled_back", {"step": 12, "to": 6, "lr": 0.005}), ["12", "6", "0.005", "5"]),
    (Incident("split", {"step": 3, "rows": 2, "accumulate": 4}), ["3", "2", "4"]),
]


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_each_incident_is_one_line_with_its_figures(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", language)
    for incident, figures in INCIDENTS:
        line = said(incident)
        assert "\n" not in line
        assert [figure for figure in figures if figure not in line] == []


# --- a signal is heard anywhere ---


class Slow(LanguageModeling):
    """Every batch takes its time, and one of them brings a signal; `seen` counts them."""

    def __init__(self, at: int, of: str):
        super().__init__(Processor())  # type: ignore[arg-type]
        self.at, self.of, self.seen = at, of, {"loss": 0, "measure": 0}

    def _pass(self, kind: str) -> None:
        self.seen[kind] += 1
        if kind == self.of and self.seen[kind] >= self.at:
            if self.seen[kind] == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        self._pass("loss")
        return super().loss(net, batch, part)

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        self._pass("measure")
        return super().measure(net, batch)


@pytest.mark.parametrize(
    ("of", "at", "step"),
    [
        ("measure", 3, 3),  # the first evaluation, after step 3, in its third of twenty batches
        ("measure", 43, 9),  # the third one, where the plan saves too
        ("loss", 1, 0),  # of twenty micro-batches a step, nothing saved yet
        ("loss", 20 * 4 + 7, 4),
    ],
)
def test_a_signal_inside_a_long_step_or_evaluation(of: str, at: int, step: int, data: Path, tmp_path: Path) -> None:
    """Left in half a second instead of the ten that the rest would take, and exact."""
    plan = replace(PLAN, rows=1, accumulate=20, evaluate_rows=20, evaluate_every=3, save_every=3, steps=10)

    def begin(out: Path, task: Any) -> Result:
        out.mkdir(exist_ok=True)
        plan.write(out)
        return fit(request(data, None, task), network(0.1), out, 9, Watch())

    straight, slow = begin(tmp_path / "straight", Slow(-1, "")), Slow(at, of)
    begun = time.monotonic()
    with pytest.raises(Interrupted, match="SIGTERM"):
        begin(tmp_path / "out", slow)
    assert time.monotonic() - begun < 5
    assert slow.seen[of] == at, "it went on after the signal"
    saved, _ = checkpoint.newest(tmp_path / "out" / CHECKPOINTS)
    assert (saved.position.step if saved else 0) == step
    resumed = begin(tmp_path / "out", Slow(-1, ""))
    assert same(resumed.weights, straight.weights)
    assert log(tmp_path / "out") == log(tmp_path / "straight")


def test_the_evaluation_after_the_last_step_is_not_lost(data: Path, tmp_path: Path) -> None:
    replace(PLAN, evaluate_rows=8).write(tmp_path)
    with pytest.raises(Interrupted):  # in the first of the two batches of the third and last evaluation
        fit(request(data, None, Slow(5, "measure")), network(0.1), tmp_path, 9, Watch())
    assert [entry["step"] for entry in log(tmp_path) if "validation" in entry] == [3, 6]
    fit(request(data), network(0.1), tmp_path, 9, Watch())
    assert [entry["step"] for entry in log(tmp_path) if "validation" in entry] == [3, 6, 8]


@pytest.mark.parametrize("call", ["_write", "_fsync", "_rename"])
def test_a_second_signal_while_saving_leaves_the_checkpoint_before(
    call: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, asked = run(data, tmp_path / "straight", None), []

    def first(done: float) -> None:
        if done == 7:
            os.kill(os.getpid(), signal.SIGINT)
            asked.append(done)

    real = getattr(files, call)

    def second(*arguments: Any) -> Any:
        if len(asked) == 1:
            asked.append(0)
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(files, call, second)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "out", None, Watch(first))
    assert len(asked) == 2
    saved, damaged = checkpoint.newest(tmp_path / "out" / CHECKPOINTS)
    assert saved is not None
    assert (saved.position.step, damaged) == (6, [])
    resumed = run(data, tmp_path / "out", None)
    assert same(resumed.weights, straight.weights)
    assert log(tmp_path / "out") == log(tmp_path / "straight")


def test_an_adversary_that_loses_is_no_spike_and_a_loss_that_is_no_number_stops_it() -> None:
    made = training()
    made.position.window = {"model": [[0.1, 0.1]] * guard.LEAST}
    assert not made._accepted("model", 10.0, 0.1)
    made.task.adversarial = True  # type: ignore[misc]
    assert made._accepted("model", 10.0, 0.1)
    assert not made._accepted("model", math.nan, 0.1)
