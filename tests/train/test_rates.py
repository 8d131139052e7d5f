"""Layers at their own rates, and from their own steps on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import adapt
from danlu.config import Train
from danlu.data.loader import Loader
from danlu.errors import UserError
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.train import rates
from danlu.train.plan import PLAN as FILE
from danlu.train.session import Interrupted, fit
from tests.train.tiny import CONTEXT, PLAN, VOCAB, Watch, log, request, same, training

pytestmark = pytest.mark.usefixtures("no_sync")


def deep(seed: int = 3) -> Network:
    shape = qwen3.preset(VOCAB, CONTEXT, 3, width=16, heads=2, head_dim=8, hidden=32, tied=False)
    return build(shape, torch.Generator().manual_seed(seed)).train()


def test_the_rate_falls_from_layer_to_layer() -> None:
    """Howard & Ruder 2018, section 3.2: the rate of a layer is that of the next above it over 2.6."""
    train = Train(layer_decay=1 / 2.6, rates={"blocks.1.mlp": 10.0, "q": 2.0})
    names = {"head.output.weight": 1.0, "core.norm.weight": 1.0, "core.blocks.2.mlp.inner.up.weight": 1 / 2.6,
             "core.blocks.0.attention.inner.o.weight": 2.6**-3, "embed.tokens.weight": 2.6**-4,
             "core.blocks.1.mlp.inner.up.weight": 10 * 2.6**-2, "core.blocks.1.attention.inner.q.bias": 2 * 2.6**-2,
             "core.blocks.1.attention.inner.q_norm.weight": 2.6**-2}  # fmt: skip
    for name, wanted in names.items():
        assert rates.factor(name, train, 3) == pytest.approx(wanted), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon", "rmsprop"])
def test_each_group_is_torchs_own_at_its_rate(optimizer: str, loader: Loader) -> None:
    """One step at rates of its own is, group by group, the step that all take at that rate."""
    train = Train(layer_decay=0.5, rates={"head": 3.0}, warmup=0.0, schedule="constant", clip=0.0)
    made, begun = moved(train, loader, optimizer), dict(deep().named_parameters())
    for name in made:
        share = rates.factor(name, train, 3)
        alike = moved(Train(warmup=0.0, schedule="constant", clip=0.0), loader, optimizer, lr=0.01 * share)
        assert torch.allclose(made[name] - begun[name], alike[name] - begun[name], atol=1e-7), name


def moved(train: Train, loader: Loader, optimizer: str, lr: float = 0.01, steps: int = 1) -> dict[str, Any]:
    made = training(train, net=deep(), optimizer=optimizer, lr=lr, steps=steps, dropout=0.0)
    list(made.events(loader, None))
    return {name: p.clone() for name, p in made.masters.params.items()}


def test_layers_wake_one_by_one_from_the_last(loader: Loader) -> None:
    made = training(Train(unfreeze=1.0, warmup=0.0), net=deep(), steps=10, dropout=0.0)
    before, woke = {name: p.clone() for name, p in made.masters.params.items()}, {}
    for event in made.events(loader, None):
        for name, p in made.masters.params.items():
            if name not in woke and not p.equal(before[name]):
                woke[name] = event.step
    first = {rates.layer(name, 3): step for name, step in woke.items()}
    assert set(woke) == set(before)
    assert first == {4: 1, 3: 3, 2: 5, 1: 7, 0: 9}  # five layers in ten steps
    asleep = training(Train(unfreeze=1.0, warmup=0.0), net=deep(), steps=10, dropout=0.0)
    next(iter(asleep.events(loader, None)))
    assert {name.split(".")[0] for name, p in asleep.net.named_parameters() if p.requires_grad} == {"head", "core"}
    assert not asleep.net.embed.tokens.weight.requires_grad


def test_half_way_it_has_all() -> None:
    names = list(dict(deep().named_parameters()))
    assert max(rates.starts(names, Train(unfreeze=0.5), 100).values()) == 40
    assert set(rates.starts(names, Train(), 100).values()) == {0}
    tuned = adapt.apply(deep(), adapt.short("last-1"), 0)
    few = [name for name, p in tuned.named_parameters() if p.requires_grad]
    assert sorted(set(rates.starts(few, Train(unfreeze=1.0), 100).values())) == [0, 50]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_at_every_step_it_ends_as_if_it_were_not(optimizer: str, data: Path, tmp_path: Path) -> None:
    train = Train(layer_decay=0.7, rates={"mlp": 2.0}, unfreeze=0.8)

    def run(out: Path, at: int = 0) -> Any:
        def stop(step: float) -> None:
            if step == at:
                raise KeyboardInterrupt

        out.mkdir(exist_ok=True)
        if not (out / FILE).exists():
            PLAN.__class__(**{**PLAN.__dict__, "optimizer": optimizer}).write(out)
        return fit(request(data, train), deep(), out, 9, Watch(stop))

    straight = run(tmp_path / "straight")
    for step in (1, 3, 4, 6):
        out = tmp_path / f"at-{step}"
        with pytest.raises((KeyboardInterrupt, Interrupted)):
            run(out, step)
        assert same(run(out).weights, straight.weights), step
        assert log(out) == log(tmp_path / "straight")


def test_a_rate_of_nothing_is_refused(loader: Loader) -> None:
    with pytest.raises(UserError, match="poolr") as caught:
        training(Train(rates={"poolr": 2.0}), net=deep())
    assert caught.value.code == "E138"
