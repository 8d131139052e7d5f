"""The running mean of the weights: its formula, what is measured and saved with it, and that no kill changes it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu.config import Train
from danlu.data.loader import Loader
from danlu.train import memory
from danlu.train.events import Evaluated
from danlu.train.loop import Training, evaluate
from tests.train.test_loop import broken_off, whole
from tests.train.tiny import PLAN, log, network, same, training

pytestmark = pytest.mark.usefixtures("no_sync")


def weights(made: Training) -> Iterator[dict[str, Tensor]]:
    """Of every step, as the optimizer left them, in float64."""
    while True:
        yield {name: tensor.double() for name, tensor in made.masters.params.items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_the_mean_of_the_formula(precision: str, loader: Loader, held_out: Loader) -> None:
    """Of 30 steps, in 21 of which the share rises: 0.1, 2 / 11, 3 / 12 ... 0.7."""
    settings = {"precision": precision, "steps": 30, "evaluate_every": 10, "stable_step": 30}
    plain = training(Train(select="last"), **settings)
    means, followed = next(weights(plain)), weights(plain)
    for step, _ in enumerate(plain.events(loader, None)):
        share = min(0.7, (1 + step) / (10 + step))
        means = {name: share * means[name] + (1 - share) * weight for name, weight in next(followed).items()}
    averaged = training(Train(select="last", average=0.7), **settings)
    looks = [event for event in averaged.events(loader, held_out) if isinstance(event, Evaluated)]
    assert same(averaged.masters.params, plain.masters.params), "the training itself is as without"
    assert same(dict(averaged.net.named_parameters()), dict(plain.net.named_parameters()))
    found = averaged.final_weights()
    for name, mean in means.items():
        assert float((found[name] - mean).norm() / mean.norm()) < 1e-6
        assert not torch.equal(found[name], plain.final_weights()[name])
    judged = training(Train(), precision=precision, net=_holding(found)).net
    assert looks[-1].metrics == evaluate(averaged.task, judged, held_out, PLAN.rows, PLAN.evaluate_rows)


def _holding(state: dict[str, Tensor]) -> Any:
    net = network()
    net.load_state_dict(state)
    return net


def test_what_is_best_by_its_mean_is_saved_as_its_mean(loader: Loader, held_out: Loader) -> None:
    made = training(Train(average=0.9), lr=0.02, steps=20, evaluate_every=4)
    looks = [event for event in made.events(loader, held_out) if isinstance(event, Evaluated)]
    best = next(event for event in looks if event.step == made.position.best_step)
    judged = training(net=_holding(made.final_weights())).net
    assert evaluate(made.task, judged, held_out, PLAN.rows, PLAN.evaluate_rows) == best.metrics


@pytest.mark.parametrize(("optimizer", "precision", "select"), [("adamw", "fp32", "best"), ("muon", "bf16", "last")])
def test_resumed_at_every_step_is_uninterrupted(
    optimizer: str, precision: str, select: Any, data: Path, tmp_path: Path
) -> None:
    train, settings = Train(average=0.8, select=select), {"optimizer": optimizer, "precision": precision}
    straight = whole(data, tmp_path / "straight", train=train, **settings)
    for step in range(1, PLAN.steps + 1):
        out = tmp_path / f"killed-{step}"
        broken_off(data, out, step, train=train, **settings)
        assert same(whole(data, out, train=train, **settings).weights, straight.weights), f"killed at step {step}"
        assert log(out) == log(tmp_path / "straight"), f"killed at step {step}"


def test_killed_again_and_again_with_the_best_behind(data: Path, tmp_path: Path) -> None:
    """High rates make the loss rise again, so that the best means are old ones that every resumption must carry."""
    train = Train(average=0.3, schedule="constant")
    settings = {"lr": 8.0, "save_every": 1, "evaluate_every": 1}
    straight = whole(data, tmp_path / "straight", train=train, **settings)
    assert straight.facts["best_step"] < PLAN.steps
    for step in range(2, PLAN.steps + 1):
        broken_off(data, tmp_path / "killed", step, train=train, **settings)
    assert same(whole(data, tmp_path / "killed", train=train, **settings).weights, straight.weights)


def test_the_cut_of_a_step_changes_nothing(loader: Loader) -> None:
    """The mean moves once for each step, however many micro-batches that has."""
    found = []
    for rows, accumulate in ((8, 1), (2, 4)):
        made = training(Train(average=0.9, warmup=0.0), optimizer="sgd", lr=0.1, rows=rows, accumulate=accumulate)
        for _ in made.events(loader, None):
            pass
        found.append(made.average.means)
    for name, mean in found[0].items():
        assert float((found[1][name] - mean).norm() / mean.norm()) < 1e-6


def test_a_return_to_the_start_forgets_the_steps(loader: Loader) -> None:
    made = training(Train(average=0.9))
    start = {name: tensor.clone() for name, tensor in made.masters.params.items()}
    for _ in made.events(loader, None):
        pass
    assert not same(made.average.means, start)
    made._load(start, {})
    assert same(made.average.means, start)


def test_its_bytes_are_forecast() -> None:
    net = network()
    net.core.norm.requires_grad_(False)
    trained, _ = memory.counted(net)
    plain, averaged = (sum(memory.shares(net, replace(PLAN, average=share)).values()) for share in (0.0, 0.99))
    assert averaged - plain == 4 * trained
