"""What is tried before a training: no more steps than decide something."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu.config import Train
from danlu.models import bert
from danlu.models.architecture import build
from danlu.nn.attention import Attention
from danlu.nn.network import Network
from danlu.train import cost, pace, plan, usual
from danlu.train.checkpoint import Position
from danlu.train.plan import Plan, resolve
from tests.train.tiny import CONTEXT, PLAN, VOCAB, loaders, network, opened, request


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of which nothing is known."""
    monkeypatch.setattr(cost, "cache_file", lambda: tmp_path / "machine.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    loaders(folder)
    return folder


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans of which steps are timed, in order; "written" is the faster."""
    plans: list[Plan] = []

    def seconds(request: Any, net: Any, made: Plan, *rest: Any, **more: Any) -> float:
        plans.append(made)
        return 0.01 if made.attention == "written" else 0.02

    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": 1e11)
    monkeypatch.setattr(pace, "step_seconds", seconds)
    return plans


def dropping(share: float) -> Network:
    """A network whose layers drop a share of what a query takes."""
    net = network()
    for module in net.modules():
        if isinstance(module, Attention):
            module.dropout.p = share
    return net


@pytest.mark.parametrize(
    ("train", "share", "forms"),
    [
        (Train(steps=4), 0.0, ["sdpa", "written"]),
        (Train(epochs=1.0), 0.1, ["written"]),  # the fused form drops nothing: both would be the same steps
        (Train(steps=4, attention="sdpa"), 0.0, ["sdpa"]),
        (Train(budget="1min"), 0.0, ["sdpa", "written", "written"]),  # the last for the length of the training
        (Train(budget="1min"), 0.1, ["written", "written"]),
    ],
)
def test_no_step_is_tried_that_decides_nothing(
    train: Train, share: float, forms: list[str], data: Path, tried: list[Plan]
) -> None:
    made = resolve(replace(request(data, train), started=time.monotonic()), dropping(share))
    assert [each.attention for each in tried] == forms
    assert made.attention == forms[-1]


def test_where_rows_are_seen_often_the_steps_that_are_tried_drop_as_the_training_will(
    data: Path, tried: list[Plan]
) -> None:
    for epochs, dropout in ((2.0, {0.0, 0.1}), (3.0, {0.1}), (9.0, {0.2})):
        tried.clear()
        cost.cache_file().unlink(missing_ok=True)  # else what was tried once is not tried again
        made = resolve(request(data, Train(epochs=epochs)), network())
        assert {each.dropout for each in tried} == {made.dropout}
        assert made.dropout in dropout
        assert made.tokens >= epochs * opened(data)[0].predictions


def test_a_step_that_is_cut_finer_is_timed_again(
    data: Path, tried: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_MICRO_SECONDS", 0.006)
    made = resolve(request(data, Train(steps=4, batch_tokens=8 * CONTEXT)), network())
    assert (made.rows, made.accumulate) == (4, 2)
    assert tried[-1] == replace(made, **{name: getattr(tried[-1], name) for name in ("seconds_per_step", *_FORECAST)})


_FORECAST = ("steps", "evaluate_every", "evaluate_rows", "save_every", "stable_step", "tokens", "seconds", "memory_mb",
             "peak_gflops", "step_gflop")  # fmt: skip


def test_both_forms_are_the_same_steps_where_shares_are_dropped() -> None:
    """Why one trial is enough: the fused form has no dropout that could be repeated."""
    shape = bert.preset(VOCAB, CONTEXT, 2, width=16, heads=2, hidden=32)
    net = build(replace(shape, core=replace(shape.core, attention_dropout=0.3)), torch.Generator().manual_seed(1))
    batch = {"input_ids": torch.arange(CONTEXT).expand(2, -1) % VOCAB, "segment_ids": torch.ones(2, CONTEXT).long()}
    found = {}
    for form in ("sdpa", "written"):
        plan.prepare(net.train(), replace(PLAN, dropout=0.0, attention=form))
        for module in net.modules():
            if isinstance(module, Attention) and module.dropout.generator:
                module.dropout.generator.manual_seed(7)
        found[form] = net(batch)
    assert torch.equal(found["sdpa"], found["written"])
    assert usual.attention(net) == "written"


def test_what_was_the_faster_once_stays_chosen(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two forms that are about as fast come out now so, now so; the weights would not be the same."""
    paces = {"sdpa": 0.01, "written": 0.02}
    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": 1e11)
    monkeypatch.setattr(pace, "step_seconds", lambda request, net, made, *rest, **more: paces[made.attention])

    def made(**more: Any) -> Plan:
        """The length of a training by time depends on its pace, so that steps are tried each time."""
        return resolve(replace(request(data, Train(budget="1min", **more)), started=time.monotonic()), network())

    assert made().attention == "sdpa"
    paces.update(sdpa=0.03)
    assert (made().attention, made().seconds_per_step) == ("sdpa", pytest.approx(0.03 * 1.04))
    assert made(batch_tokens=64).attention == "written", "other steps"
    monkeypatch.setattr(cost, "cache_file", lambda: tmp_path / "another.json")
    assert made().attention == "written", "another machine"


def test_micro_batches_that_were_short_enough_once_stay(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over other micro-batches end in other bits: the same training would not give the same weights."""
    taken = {"seconds": 0.01}
    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": 1e11)
    monkeypatch.setattr(pace, "step_seconds", lambda *_, **__: taken["seconds"])

    def made(rows: int) -> Plan:
        asked = request(data, Train(budget="10min", batch_tokens=rows * CONTEXT))
        return resolve(replace(asked, started=time.monotonic()), network())

    first = made(8)
    taken["seconds"] = 10.0  # the machine is busy
    again, slow = made(8), made(4)
    assert (first.rows, first.accumulate) == (again.rows, again.accumulate) == (8, 1)
    assert again.seconds_per_step == pytest.approx(10.4)
    taken["seconds"] = 0.01
    assert slow.accumulate == made(4).accumulate == 4


def test_where_the_length_is_told_the_same_steps_are_tried_once(data: Path, tried: list[Plan]) -> None:
    """Their pace is for the forecast alone; a training that was faster mends it, one that was slower was disturbed."""
    asked = request(data, Train(steps=4))
    first = resolve(asked, network())
    count = len(tried)
    assert count and resolve(asked, network()) == first and len(tried) == count
    assert resolve(request(data, Train(steps=9)), network()).steps == 9 and len(tried) == count
    for seconds, known in ((9.0, first.seconds_per_step), (0.001, 0.001)):
        pace.outrun(asked, network(), first, Position(step=1, seconds=seconds))
        assert resolve(asked, network()).seconds_per_step == known
    resolve(request(data, Train(steps=4, optimizer="sgd")), network())
    assert len(tried) > count, "other steps"
