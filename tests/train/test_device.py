"""The same recipe on another device: nothing of a training is left behind, and the host waits once a step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from danlu import device, room
from danlu.config import System, Train
from danlu.data.loader import IGNORE, Loader, Shape
from danlu.errors import UserError
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn import masks, network
from danlu.nn.cache import Cache
from danlu.nn.generate import Sampling, sample
from danlu.nn.losses import chunked_cross_entropy
from danlu.tasks.language_modeling import LanguageModeling
from danlu.train import cost, feed, memory, probe, split
from danlu.train.checkpoint import Checkpoint
from danlu.train.feed import placed
from danlu.train.loop import Training, evaluate
from danlu.train.plan import prepare
from danlu.train.session import CHECKPOINTS, fit
from tests.train import tiny
from tests.train.no_data import DEVICE, Anywhere, Crossed, Mixed, OneDevice
from tests.train.tiny import CONTEXT, PLAN, VOCAB, Processor, Watch, opened, request, same

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU on this machine")


# --- which one ---


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: ["cpu", "cuda:0"])
    assert [device.chosen(each) for each in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:0", "cuda:0", "cuda:0", "cpu"]
    with pytest.raises(UserError) as refused:
        device.chosen("cuda:1")
    assert (refused.value.code, refused.value.exit) == ("E127", 2)
    assert "cpu, cuda:0" in refused.value.render()


def test_without_a_gpu_auto_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: ["cpu", "mps"])
    assert device.chosen("auto") == "cpu"  # Apple's GPU only for who asks for it
    assert device.chosen("mps") == "mps"


def test_several_processes_train_on_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: ["cpu", "cuda:0"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="E128"):
        device.chosen("auto")
    assert device.chosen("cpu") == "cpu"


def test_nothing_is_loaded_to_check_a_recipe_that_names_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: pytest.fail("asked torch"))
    device.check("auto")
    device.check("cpu")


# --- what a batch is there ---


def test_what_depends_on_values_is_decided_on_the_host(loader: Loader) -> None:
    batch = loader.assemble(list(range(len(loader))))
    there = placed(batch, DEVICE)
    counted = int((batch["labels"] != IGNORE).sum())
    assert there["counted"].shape == (counted,)
    assert "segment_ids" in there
    plain = {"segment_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.ones(2, 4, dtype=torch.long)}
    assert set(placed(plain, DEVICE)) == {"labels"}
    assert placed(batch, torch.device("cpu")) is batch


def test_a_placed_batch_gives_the_same_loss(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a device, computed here: the tensors only say that they are not on the processor."""
    batch, net = loader.assemble(list(range(len(loader)))), tiny.network()
    task = LanguageModeling(Processor())  # type: ignore[arg-type]
    wanted = task.loss(net, batch)["loss"]
    monkeypatch.setattr(feed, "sent", lambda tensor, to: tensor)
    there = placed(batch, DEVICE)
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda self: False))
    found = task.loss(net, there)["loss"]
    assert torch.allclose(found, wanted, rtol=1e-6)


def test_a_loss_of_which_all_targets_count_asks_nothing() -> None:
    random = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(6, 4, generator=random), torch.randn(9, 4, generator=random)
    targets = torch.tensor([1, 2, 3, 4, 5, 6])
    assert torch.equal(
        chunked_cross_entropy(hidden, weight, targets, ignore=None), chunked_cross_entropy(hidden, weight, targets)
    )


# --- whole trainings without data ---


def trained(loader: Loader, patch: pytest.MonkeyPatch, train: Train, net: nn.Module | None = None, **plan: Any) -> None:
    """Two steps of a training on the device; what the guard sees of them is made up, since there is no data."""
    mode, host, sent = OneDevice(), [], feed.sent
    patch.setattr(torch, "Generator", Anywhere)

    def sending(tensor: Tensor, to: torch.device) -> Tensor:
        with mode.crossing():
            return sent(tensor, to)

    sent_in = [_tensors(loader, step) for step in range(3)]
    patch.setattr(feed, "sent", sending)
    made = replace(PLAN, device="meta", accumulate=2, steps=3, **plan)
    net = (net or tiny.network()).to(DEVICE)
    _first(net)
    prepare(net, made)
    training = Training(LanguageModeling(Processor()), net, train, made, seed=9)  # type: ignore[arg-type]

    def waits(*_: Any) -> float:
        host.append(training.position.step)
        return 1.0

    patch.setattr(training.ranks, "clip", lambda gradients, limit: waits(_clipped(gradients.values())))
    patch.setattr(training, "_summed", lambda losses, tokens: (waits(torch.stack(losses)), tokens))
    with mode:
        events = training.events(loader, None)
        next(events)
        at_start = mode.crossed
        next(events)
    assert at_start == sent_in[0] + sent_in[1]  # this step's batches and the next one's, and nothing else
    assert mode.crossed == sum(sent_in)
    assert host == [0, 0, 1, 1]
    assert all(each.device == DEVICE for each in training.masters.params.values())
    assert all(each.device == DEVICE for o in training.optimizers.values() for each in o.state.values())


def _clipped(gradients: Any) -> Tensor:
    """optim.clip up to the number that it reads."""
    tensors = list(gradients)
    return torch.stack(torch._foreach_norm(tensors)).norm()


def _first(net: Any) -> None:
    """The forward in which the rotary frequencies are sent, once."""
    net.eval()({"input_ids": torch.zeros(1, 1, dtype=torch.long, device=DEVICE)})
    net.train()


def _tensors(loader: Loader, step: int) -> int:
    """How many tensors a step of two micro-batches reads."""
    return sum(len(placed(loader.train(step, micro, Shape(PLAN.rows, 2)), DEVICE)) for micro in range(2))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_leaves_nothing_on_the_host(
    optimizer: str, precision: str, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(loader, monkeypatch, Train(l1=0.1, l2=0.1), optimizer=optimizer, precision=precision)


@pytest.mark.parametrize("plan", [{"attention": "written"}, {"checkpointing": "blocks"}, {"dropout": 0.0}])
def test_no_form_of_a_step_does(plan: dict[str, Any], loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(loader, monkeypatch, Train(), **plan)


FORMS: dict[str, dict[str, Any]] = {
    "windows": {"window": (4, 0)},
    "grouped": {"kv_heads": 1},
    "layer norm": {"norm": "layer", "bias": "all", "mlp": "gelu_tanh"},
}


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_the_network_does(form: str, loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = qwen3.preset(VOCAB, CONTEXT, 2, width=16, heads=2, head_dim=8, hidden=32)
    net = build(replace(shape, core=replace(shape.core, **FORMS[form])), torch.Generator().manual_seed(3)).train()
    trained(loader, monkeypatch, Train(), net=net)


def test_a_forgotten_mask_is_found(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: a mask made on the host meets scores on the device."""
    real = masks.segment_mask

    def forgotten(segments: Tensor) -> Tensor:
        return torch.ones(real(segments).shape, dtype=torch.bool, device="cpu")  # type: ignore[union-attr]

    monkeypatch.setattr(network, "segment_mask", forgotten)
    with pytest.raises(Mixed):
        trained(loader, monkeypatch, Train())


def test_a_value_asked_of_the_device_is_found(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LanguageModeling.loss

    def asking(self: Any, net: Any, batch: Any, part: str = "model") -> Any:
        terms = real(self, net, batch, part)
        float(terms["loss"])
        return terms

    monkeypatch.setattr(LanguageModeling, "loss", asking)
    with pytest.raises(RuntimeError, match="item"):
        trained(loader, monkeypatch, Train())


def test_a_tensor_sent_in_the_middle_of_a_step_is_found(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "segment_mask", lambda segments: masks.segment_mask(segments.to("cpu")))
    with pytest.raises((Crossed, NotImplementedError)):
        trained(loader, monkeypatch, Train())


def test_generation_with_a_cache_leaves_nothing_on_the_host() -> None:
    net, mode = tiny.network().to(DEVICE), OneDevice()
    cache = Cache(net.core.config, 2, 16, net.dtype, net.device)
    _first(net)
    with mode, torch.inference_mode():
        for ids, positions in (([[1, 2, 3], [4, 5, 6]], [[0, 1, 2]] * 2), ([[7], [8]], [[3]] * 2)):
            batch = {"position_ids": torch.tensor(positions), "slots": torch.tensor([0, 1])}
            with mode.crossing():
                batch["input_ids"] = torch.tensor(ids).to(DEVICE)
                logits = net(batch, cache)[:, -1]
            drawn = [torch.Generator().manual_seed(1)] * 2
            warm = Sampling(temperature=0.7, top_k=5, top_p=0.9, repetition_penalty=1.1)
            with mode.crossing():
                assert sample(logits, [warm] * 2, [[1], [2]], drawn).device == DEVICE


def test_an_evaluation_reads_only_its_sums(held_out: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny.network()
    task = LanguageModeling(Processor())  # type: ignore[arg-type]
    wanted = evaluate(task, net, held_out, 4)
    monkeypatch.setattr(feed, "sent", lambda tensor, to: tensor)
    where: list[torch.device] = []
    monkeypatch.setattr("danlu.train.loop.placed", lambda batch, to: where.append(to) or batch)
    assert evaluate(task, net, held_out, 4) == wanted
    assert set(where) == {torch.device("cpu")}


# --- from one device to another ---


def test_a_training_goes_on_on_another_device(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun on a GPU by its plan and checkpoint, ended here: said once, and the plan says where it is now."""
    asked = replace(request(tmp_path / "rows", Train(steps=4, save_every=2, precision="fp32")), started=0.0)
    monkeypatch.setattr("danlu.train.pace.step_seconds", lambda *_, **__: 0.01)
    out = tmp_path / "out"
    out.mkdir()

    class Stop(Exception): ...

    def act(step: float) -> None:
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        fit(asked, tiny.network(), out, 9, Watch(act))
    assert (out / CHECKPOINTS).is_dir()
    plan = tiny_plan(out)
    replace(plan, device="cuda:0", device_name="NVIDIA X").write(out)
    watch = Watch()
    result = fit(asked, tiny.network(), out, 9, watch)
    assert result.plan.device == "cpu"
    assert [line for line in watch.lines if "NVIDIA X" in line]
    assert [line for line in watch.lines if "step 2" in line]


def tiny_plan(out: Path) -> Any:
    from danlu.train.plan import Plan

    plan = Plan.read(out)
    assert plan
    return plan


# --- memory and speed ---


def test_a_gpu_is_measured_by_its_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5)
    assert probe.peak_on_gpu(lambda: None, "cuda:0") == 5.0

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert probe.peak_on_gpu(full, "cuda:0") == float("inf")
    with pytest.raises(ValueError, match="else"):
        probe.peak_on_gpu(lambda: (_ for _ in ()).throw(ValueError("else")), "cuda:0")


def test_a_plan_must_fit_into_the_memory_of_its_gpu(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "on_gpu", lambda where: 123e6)
    on_gpu = replace(PLAN, device="cuda:0")
    assert split.available(on_gpu) == 123e6
    assert split.available(PLAN) != 123e6
    net = tiny.network()
    assert memory.shares(net, on_gpu)["process"] < memory.shares(net, PLAN)["process"]
    assert split.allows(net, on_gpu)
    monkeypatch.setattr(room, "on_gpu", lambda where: 1e6)
    assert not split.allows(net, on_gpu)


def test_out_of_memory_while_batches_are_sent_cuts_the_step(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    made, tries = tiny.training(), []
    real = feed.placed

    def full_once(batch: Any, to: torch.device) -> Any:
        tries.append(1)
        if len(tries) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(batch, to)

    monkeypatch.setattr(feed, "placed", full_once)
    event = next(made.events(loader, None))
    assert event.incidents[0].kind == "split"  # type: ignore[union-attr]
    assert made.shape.accumulate == 2 * PLAN.accumulate


def test_the_clock_of_a_product_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(device, "wait", lambda where: waited.append(where.type))
    cost._matmul_rate(torch.float32, DEVICE)
    assert waited == ["meta"] * 10


# --- on a real one ---


@GPU
def test_a_gpu_learns_what_the_processor_learns(data: Path, tmp_path: Path) -> None:
    losses = {}
    for where in ("cpu", "cuda:0"):
        made = tiny.training(net=tiny.network().to(where), dropout=0.0, device=where)
        losses[where] = [event.loss for event in made.events(opened(data)[0], None)]  # type: ignore[union-attr]
    assert losses["cuda:0"] == pytest.approx(losses["cpu"], rel=1e-3)


@GPU
def test_a_gpu_repeats_a_training_bit_by_bit(data: Path) -> None:
    found: list[Checkpoint] = []
    for _ in range(2):
        made = tiny.training(net=tiny.network().cuda(), device="cuda:0", precision="bf16")
        list(made.events(opened(data)[0], None))
        found.append(made.checkpoint())
    assert same(found[0].weights, found[1].weights)


@GPU
def test_a_training_killed_on_a_gpu_goes_on_there(data: Path) -> None:
    whole = tiny.training(net=tiny.network().cuda(), device="cuda:0")
    list(whole.events(opened(data)[0], None))
    first = tiny.training(net=tiny.network().cuda(), device="cuda:0")
    events = first.events(opened(data)[0], None)
    for _ in range(4):
        next(events)
    saved = first.checkpoint()
    again = tiny.training(net=tiny.network().cuda(), device="cuda:0")
    again.restore(replace(saved, weights={n: t.cpu() for n, t in saved.weights.items()}))
    list(again.events(opened(data)[0], None))
    assert same(whole.checkpoint().weights, again.checkpoint().weights)


@GPU
def test_the_room_of_a_gpu_is_that_of_its_driver() -> None:
    assert 0 < room.on_gpu("cuda:0") <= torch.cuda.get_device_properties(0).total_memory
    assert device.use(System(device="cuda")) == "cuda:0"
    assert cost.peak("bf16", "cuda:0") > 1e12
