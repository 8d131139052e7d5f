"""fp8 in a training: refused where the hardware has none, wired without a device, and learning all the same."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import device
from danlu.config import Train
from danlu.data.loader import Loader
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn import fp8
from danlu.train import precision
from danlu.train.loop import Training
from danlu.train.plan import prepare, resolve
from danlu.train.session import fit
from tests import tiny_life
from tests.train import tiny
from tests.train.test_device import trained as without_data
from tests.train.tiny import CONTEXT, VOCAB, Watch, opened, same


def on_gpu(patch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None = None) -> None:
    """A GPU that only says what it can."""
    patch.setattr(device, "available", lambda: ["cpu", "cuda:0"])
    patch.setattr(device, "name", lambda where: "A GPU")
    patch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
    patch.setattr(torch.version, "hip", hip)


# --- where it is refused ---


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (10, 0), (12, 0)])
def test_hardware_that_has_it_may(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, capability)
    device.multiplies("fp8", "auto")


@pytest.mark.parametrize(("capability", "hip"), [((8, 0), None), ((8, 6), None), ((9, 4), "6.2")])
def test_a_gpu_without_it_is_refused_by_name(
    capability: tuple[int, int], hip: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, capability, hip)
    with pytest.raises(UserError) as refused:
        device.multiplies("fp8", "auto")
    assert (refused.value.code, refused.value.exit) == ("E136", 2)
    assert "cuda:0 (A GPU)" in refused.value.render()
    device.multiplies("bf16", "auto")
    with pytest.raises(UserError, match="E136"):
        device.multiplies("fp8", "cpu")  # the recipe names the processor beside a GPU


def test_other_precisions_load_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "chosen", lambda wanted: pytest.fail("asked torch"))
    for each in ("auto", "fp32", "bf16"):
        device.multiplies(each, "auto")


def test_a_run_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    life = tiny_life.life(tiny_life.project(tmp_path), "train.precision=fp8", "system.device=cpu")
    with pytest.raises(UserError, match="E136"):
        life.run(Silent())
    assert not list((tmp_path / "runs").glob("store/*")), "the data were read first"
    life.run(Silent(), "encode")  # what trains nothing needs none


def test_a_training_of_the_library_is_refused_too(tmp_path: Path) -> None:
    request = tiny.request(tmp_path / "data", Train(precision="fp8", steps=2))
    with pytest.raises(UserError, match="E136"):
        resolve(request, tiny.network())


def test_matrices_that_cannot_be_multiplied_are_named() -> None:
    net = build(
        qwen3.preset(VOCAB, CONTEXT, 1, width=16, heads=2, head_dim=8, hidden=24), torch.Generator().manual_seed(3)
    )
    precision.check(net, "bf16")
    with pytest.raises(UserError) as refused:
        precision.check(net, "fp8")
    assert "core.blocks.0.mlp.inner.gate has 24 x 16" in refused.value.render()


# --- what it does ---


def test_evaluation_and_answers_stay_in_bf16(loader: Loader) -> None:
    batch, net = loader.assemble([0, 1]), tiny.network()
    with torch.no_grad():
        plain = net(batch)
    fp8.switch(net, True)
    with torch.no_grad():
        assert torch.equal(net(batch), plain)
    assert torch.equal(net.eval()(batch), plain)
    assert not torch.equal(net.train()(batch), plain)


@pytest.mark.parametrize("plan", [{}, {"checkpointing": "blocks"}, {"optimizer": "muon"}])
def test_a_step_leaves_nothing_on_the_host(
    plan: dict[str, Any], loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without data, and with the rules of CUDA for sizes and layouts of products in fp8, which torch knows for it."""
    seen = []
    product = torch._scaled_mm

    def noted(*args: Any, **keys: Any) -> Any:
        seen.append([side.dtype for side in args[:2]])
        return product(*args, **keys)

    monkeypatch.setattr(torch, "_scaled_mm", noted)
    without_data(loader, monkeypatch, Train(), precision="fp8", **plan)
    forward, gradient = [torch.float8_e4m3fn] * 2, [torch.float8_e5m2, torch.float8_e4m3fn]
    layers, micro_batches, again = 7, 4, 2 if plan.get("checkpointing") else 1
    assert seen.count(forward) == layers * micro_batches * again
    assert seen.count(gradient) == 2 * layers * micro_batches


def trained(data: Path, kind: str, **plan: Any) -> Training:
    made = tiny.training(precision=kind, **plan)
    prepare(made.net, made.plan)
    list(made.events(opened(data)[0], None))
    return made


def test_it_learns_as_bf16_does(data: Path) -> None:
    """By torch's products in fp8 on the processor, which are slow there and the same."""
    runs = {kind: trained(data, kind, steps=40, lr=0.02) for kind in ("bf16", "fp8")}
    first = tiny.training(precision="bf16")
    held_out = opened(data)[1].assemble(list(range(8)))

    def loss(made: Training) -> float:
        with torch.no_grad():
            sums = made.task.measure(made.net.eval(), held_out)
        return float(sums["loss"]) / float(made.task.counts(held_out)["loss"])

    start, plain, rounded = (loss(each) for each in (first, runs["bf16"], runs["fp8"]))
    assert plain < start - 0.5
    assert abs(rounded - plain) < 0.1 * (start - plain)
    assert not same(runs["bf16"].checkpoint().weights, runs["fp8"].checkpoint().weights)


def test_resumed_it_ends_with_the_same_weights(data: Path) -> None:
    whole = trained(data, "fp8")
    first = tiny.training(precision="fp8")
    prepare(first.net, first.plan)
    events = first.events(opened(data)[0], None)
    for _ in range(3):
        next(events)
    again = tiny.training(precision="fp8")
    prepare(again.net, again.plan)
    again.restore(copy.deepcopy(first.checkpoint()))
    list(again.events(opened(data)[0], None))
    assert same(again.checkpoint().weights, whole.checkpoint().weights)


def test_a_training_in_fp8_does_not_go_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun on a GPU, by its plan; the recipe was written before."""
    request, out = tiny.request(tmp_path / "data", Train(precision="auto")), tmp_path / "out"
    out.mkdir()
    replace(tiny.PLAN, precision="fp8", device="cuda:0", device_name="A GPU").write(out)
    with pytest.raises(UserError, match="E136"):
        fit(request, tiny.network(), out, 1, Watch())
