"""Compiled blocks: from the planned step on, in training alone, and only where that pays back."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu.config import Train
from danlu.data.loader import Loader
from danlu.errors import UserError
from danlu.nn import transformer
from danlu.train import compiling, cost
from danlu.train.loop import Training
from danlu.train.plan import Plan, Request
from tests.train import tiny
from tests.train.tiny import PLAN, Watch, opened, same, training

# --- from when on: with a program that can be told from the eager block ---


def visibly(block: Any, *inputs: Any) -> Tensor:
    made: Tensor = block(*inputs)
    return made * 1.01


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "program", lambda: visibly)


def weights(data: Path, made: Training) -> dict[str, Tensor]:
    list(made.events(opened(data)[0], None))
    return made.checkpoint().weights


@pytest.mark.usefixtures("visible")
def test_blocks_are_compiled_from_the_planned_step_on(data: Path) -> None:
    never, late, early = (weights(data, training(compiled_from=step)) for step in (-1, 4, 0))
    after_all = weights(data, training(compiled_from=PLAN.steps))
    assert same(never, after_all)
    assert not same(never, late)
    assert not same(late, early)


@pytest.mark.usefixtures("visible")
@pytest.mark.parametrize("stopped", [2, 4, 6])
def test_a_resumed_training_takes_the_same_path(stopped: int, data: Path) -> None:
    whole = weights(data, training(compiled_from=4))
    first = training(compiled_from=4)
    events = first.events(opened(data)[0], None)
    for _ in range(stopped):
        next(events)
    again = training(compiled_from=4)
    again.restore(copy.deepcopy(first.checkpoint()))
    assert same(weights(data, again), whole)


@pytest.mark.usefixtures("visible")
def test_evaluation_and_answers_stay_eager(loader: Loader) -> None:
    net = tiny.network()
    batch = loader.assemble([0, 1])
    eager = net.eval()(batch)
    compiling.switch(net, True)
    assert torch.equal(net(batch), eager)
    with torch.no_grad():
        assert torch.equal(net.train()(batch), eager)
    assert not torch.equal(net(batch), eager)


# --- whether ---


def asked(wish: str | bool, steps: int | None = None) -> Request:
    return Request(None, Train(steps=steps), None, None, "random", 0.0, compile=wish)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing was measured yet."""
    monkeypatch.setattr(cost, "cache_file", lambda: tmp_path / "machine.json")


def decided(
    wish: str | bool, seconds: float, shorter: float = 0.5, work: str = "work", counted: bool = True
) -> tuple[Plan, int]:
    """The plan, and how often it was tried; a step takes a second."""
    tried: list[Plan] = []

    def pace(form: Plan) -> float:
        tried.append(form)
        return shorter

    plan = replace(PLAN, seconds_per_step=1.0, steps=int(seconds), seconds=seconds)
    return compiling.decided(asked(wish, int(seconds) if counted else None), plan, work, pace), len(tried)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "available", lambda where: True)


@pytest.mark.usefixtures("compiler")
def test_a_long_training_is_compiled_where_that_pays() -> None:
    plan, tried = decided("auto", 5000)
    assert (plan.compiled_from, plan.seconds_per_step, tried) == (0, 0.5, 1)
    plan, tried = decided("auto", 5000, shorter=1.1, work="other")
    assert (plan.compiled_from, plan.seconds_per_step, tried) == (-1, 1.0, 1)


@pytest.mark.usefixtures("compiler")
def test_a_short_one_is_not_even_tried() -> None:
    assert decided("auto", 60)[1] == 0
    assert decided(False, 5000)[1] == 0


@pytest.mark.usefixtures("compiler")
def test_what_was_decided_once_stays() -> None:
    """A compiled block ends in other bits: the same training would not give the same weights."""
    assert [decided("auto", 5000, shorter)[0].compiled_from for shorter in (0.5, 1.1)] == [0, 0]
    assert [decided("auto", 5000, shorter, "other")[0].compiled_from for shorter in (1.1, 0.5)] == [-1, -1]


@pytest.mark.usefixtures("compiler")
def test_steps_that_follow_from_a_clock_are_never_met_again() -> None:
    assert decided("auto", 5000, counted=False)[0].compiled_from == 0
    assert decided("auto", 5000, shorter=1.1, counted=False)[0].compiled_from == -1
    assert not cost.cache_file().exists()


@pytest.mark.usefixtures("compiler")
def test_what_is_asked_for_is_done() -> None:
    plan, _ = decided(True, 60, shorter=1.1)
    assert (plan.compiled_from, plan.seconds_per_step) == (0, 1.1)


def test_without_a_compiler_all_is_eager_and_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    plan, tried = decided(True, 5000)
    assert (plan.compiled_from, tried) == (-1, 0)
    watch = Watch()
    compiling.told(asked(True), plan, watch)
    compiling.told(asked("auto"), plan, watch)
    assert len(watch.lines) == 1
    moved = compiling.kept(replace(PLAN, compiled_from=0), watch)
    assert (moved.compiled_from, len(watch.lines)) == (-1, 2)


@pytest.mark.usefixtures("compiler")
def test_a_compiler_that_fails_is_none() -> None:
    def pace(form: Plan) -> float:
        raise RuntimeError("CppCompileError")

    plan = replace(PLAN, seconds=5000.0, seconds_per_step=1.0)
    assert compiling.decided(asked(True), plan, "work", pace) == plan


@pytest.mark.usefixtures("compiler")
def test_ranks_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="E129"):
        compiling.check(asked(True))
    compiling.check(asked("auto"))
    assert decided("auto", 5000)[1] == 0
