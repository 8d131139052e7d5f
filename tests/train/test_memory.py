"""Memory: the forecast is near what a step takes, what does not fit is cut finer, and what cannot be is said first."""

import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu import messages
from danlu.config import Train
from danlu.data.loader import Loader, Shape
from danlu.errors import UserError
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch
from danlu.train import checkpoint, cost, memory, plan
from danlu.train.loop import Evaluated
from danlu.train.plan import Plan, resolve
from danlu.train.session import CHECKPOINTS, METRICS, Result, fit
from tests.train.tiny import PLAN, Processor, loaders, network, request, training

MB = 1e6
Weights = dict[str, Tensor]
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured through /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    loaders(folder)
    return folder


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of syncs is tested elsewhere; here they would only take time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Watch:
    """A view that remembers lines, and may end the process at a step."""

    def __init__(self, ends: int = 0):
        self.lines: list[str] = []
        self.ends = ends

    def progress(self, done: float, total: float, note: str) -> None:
        if done == self.ends:
            raise KeyboardInterrupt

    def line(self, line: str) -> None:
        self.lines.append(line)


def same(a: Weights, b: Weights) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def log(out: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


# --- the forecast, and the probe that checks it ---


SHAPES = {  # layers, width, context, rows, vocabulary, and what differs from the plan
    "activations": (4, 192, 256, 16, 2000, {}),
    "bf16": (4, 192, 256, 16, 2000, {"precision": "bf16"}),
    "scores": (4, 128, 512, 4, 1000, {"attention": "written"}),
    "weights": (6, 512, 64, 1, 8000, {"optimizer": "adamw"}),
    "muon": (6, 512, 64, 1, 8000, {"optimizer": "muon"}),
    "micro-batches": (4, 192, 256, 8, 4000, {"accumulate": 3}),
}


def large(name: str) -> tuple[Network, Plan]:
    layers, width, context, rows, vocab, settings = SHAPES[name]
    net = build(qwen3.preset(vocab, context, layers, width=width, heads=4), torch.Generator().manual_seed(1))
    return net.train(), replace(
        PLAN, **({"rows": rows, "accumulate": 1, "context": context, "dropout": 0.0} | settings)
    )


class Filled:
    """Rows without padding, of any context."""

    def __init__(self, context: int, vocab: int):
        self.context, self.vocab = context, vocab

    def train(self, step: int, micro: int, shape: Any) -> Batch:
        ids = (torch.arange(shape.rows * self.context) * 7 % self.vocab).view(shape.rows, self.context)
        places = torch.arange(self.context).expand_as(ids).contiguous()
        return {"input_ids": ids, "labels": ids.roll(-1, 1), "position_ids": places, "segment_ids": ids * 0 + 1}


@linux
@pytest.mark.parametrize("name", SHAPES)
def test_the_forecast_is_near_what_a_step_takes(name: str, data: Path) -> None:
    """What the process itself holds is left out of both: it differs between a test run and a command."""
    net, made = large(name)
    processor = Processor()
    processor.vocab_size = SHAPES[name][4]
    processor.token_bytes = lambda: [1] * processor.vocab_size  # type: ignore[method-assign]
    asked = replace(request(data), task=LanguageModeling(processor), loader=Filled(made.context, processor.vocab_size))  # type: ignore[arg-type]
    shares = memory.shares(net, made)
    held = sum(p.numel() for p in net.parameters()) * 4  # before the step begins
    forecast = sum(shares.values()) - shares["process"] - held
    measured = memory.probe(lambda: memory._one_step(asked, net, made))
    assert measured is not None
    grown = measured - memory.resident()
    assert 0.65 < forecast / grown < 1.5


@linux
def test_a_probe_measures_the_peak_of_a_child() -> None:
    before, kept = memory.resident(), torch.ones(10_000_000)  # 40 MB that the child holds too
    measured = memory.probe(lambda: (torch.ones(50_000_000), torch.ones(5_000_000)))
    assert measured is not None
    assert kept[0] + (measured - before) / MB == pytest.approx(1 + 40 + 200 + 20, rel=0.15)
    assert memory.resident() < before + 60 * MB


@linux
def test_what_a_probe_says_when_its_child_does_not_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PATIENCE", 0.2)
    assert memory.probe(lambda: os.kill(os.getpid(), signal.SIGKILL)) == math.inf  # as the kernel does
    assert memory.probe(lambda: torch.empty(2**60)) == math.inf
    assert memory.probe(lambda: 1 / 0) is None
    assert memory.probe(lambda: torch.ones(2) @ torch.ones(3)) is None
    assert memory.probe(lambda: time.sleep(60)) is None


# --- what there is ---


def system(folder: Path, monkeypatch: pytest.MonkeyPatch, groups: str, figures: dict[str, str]) -> None:
    """A machine with 8 GB free, and a process that holds a million pages of it."""
    for name, content in {"self/cgroup": groups, "meminfo": "MemTotal: 16 kB\nMemAvailable: 8000000 kB\n"}.items():
        (folder / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "proc" / name).write_text(content)
    for name, content in figures.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(content)
    monkeypatch.setattr(memory, "_PROC", folder / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", folder / "groups")
    monkeypatch.setattr(memory, "resident", lambda: 1e9)


V2 = {"a/b/memory.max": "max\n", "a/b/memory.current": "1000\n", "a/memory.max": "5000000000\n"}
V2 |= {"a/memory.current": "3000000000\n", "a/memory.stat": "anon 5\ninactive_file 1000000000\n"}
V1 = {"memory/a/memory.limit_in_bytes": "4000000000", "memory/a/memory.usage_in_bytes": "1500000000"}
V1 |= {
    "memory/a/memory.stat": "cache 9\ntotal_inactive_file 500000000\n",
    "memory/a/memory.oom_control": "oom_kill 4\n",
}
MACHINES = {
    "no cgroups": ("", {}, 8.192e9),
    "version 2, limited further out": ("0::/a/b\n", V2, 3e9),
    "version 2, inside a container": ("0::/\n", {"memory.max": "2000", "memory.current": "500"}, 1500),
    "version 1": ("5:cpu:/\n4:memory,hugetlb:/a\n0::/\n", V1, 3e9),
    "version 1, another path than ours": ("4:memory:/x/y\n", {"memory/memory.limit_in_bytes": "no"}, 8.192e9),
    "limits wider than the machine": ("0::/\n", {"memory.max": "99000000000", "memory.current": "5"}, 8.192e9),
}


@pytest.mark.parametrize("name", MACHINES)
def test_room_is_what_machine_and_cgroups_leave(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, figures, left = MACHINES[name]
    system(tmp_path, monkeypatch, groups, figures)
    left = 8e9 * 1.024 if left == 8.192e9 else left
    assert memory.room() == pytest.approx(1e9 + left)
    assert memory._kills() == (4 if name == "version 1" else 0)


@linux
def test_this_machine_has_room() -> None:
    assert memory.resident() > 50 * MB
    assert memory.resident() < memory.room() < 1e14


def test_a_system_that_says_nothing_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    assert memory.room() == math.inf
    assert not memory.killed(tmp_path)


# --- before the first step ---


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 12, 30])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_finer_cut_has_equal_parts_of_the_same_step(rows: int, accumulate: int) -> None:
    task, total, cuts = LanguageModeling(Processor()), rows * accumulate, [accumulate]  # type: ignore[arg-type]
    while (parts := memory.finer(task, total // cuts[-1], cuts[-1])) is not None:
        assert total % parts == 0
        assert parts >= 2 * cuts[-1]
        cuts.append(parts)
    assert cuts[-1] == total or total < 2 * cuts[-1]
    task.coupled = "batch"  # type: ignore[misc]
    assert memory.finer(task, 8, 1) is None


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "peak", lambda precision: 1e11)
    monkeypatch.setattr(plan, "_step_seconds", lambda *_, **__: 0.01)


def fixed(monkeypatch: pytest.MonkeyPatch, room: float, per_row: float) -> list[int]:
    """A machine of `room` bytes on which each row takes `per_row`; what is probed is listed."""
    probed: list[int] = []

    def step(request: Any, net: Any, made: Plan) -> None:
        probed.append(made.rows)

    def probe(work: Any) -> float:
        work()
        return probed[-1] * per_row

    monkeypatch.setattr(memory, "room", lambda: room)
    monkeypatch.setattr(memory, "_one_step", step)
    monkeypatch.setattr(memory, "probe", probe)
    monkeypatch.setattr(memory, "forecast", lambda net, made: made.rows * per_row)
    return probed


def test_micro_batches_are_cut_until_one_fits(data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    train = Train(batch_tokens=8 * 32, steps=4)
    whole = resolve(request(data, train), network())
    assert (whole.rows, whole.accumulate, whole.unsplit) == (8, 1, 0)
    probed = fixed(monkeypatch, room=30.0, per_row=10.0)  # 27 may be taken
    cut = resolve(request(data, train), network())
    assert (cut.rows, cut.accumulate, cut.unsplit) == (2, 4, 1)
    assert probed == [4, 2]  # eight rows are too many by any measure
    assert replace(cut, rows=8, accumulate=1, unsplit=0, memory_mb=0) == replace(whole, memory_mb=0)


def test_small_models_are_not_probed(data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    probed = fixed(monkeypatch, room=1000.0, per_row=10.0)
    resolve(request(data, Train(batch_tokens=8 * 32, steps=4)), network())
    assert probed == []


def test_not_one_row_fits(data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    fixed(monkeypatch, room=5e6, per_row=10e6)
    with pytest.raises(UserError) as problem:
        resolve(request(data, Train(batch_tokens=8 * 32, steps=4)), network())
    assert (problem.value.code, problem.value.exit) == ("E403", 5)
    for language in messages.LANGUAGES:
        monkeypatch.setenv("DANLU_LANG", language)
        said = problem.value.render()
        assert " 4 MB" in said  # nine tenths of 5
        assert "model.depth" in said
        assert "model.context" in said
        assert len(problem.value.evidence) == 4


def test_the_form_of_attention_that_does_not_fit_is_not_tried(
    data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None
) -> None:
    tried: set[str] = set()

    def seconds(request: Any, net: Any, made: Plan, *rest: Any) -> float:
        tried.add(made.attention)
        return 0.01

    monkeypatch.setattr(plan, "_step_seconds", seconds)
    monkeypatch.setattr(memory, "forecast", lambda net, made: 100.0 if made.attention == "written" else 1.0)
    for room, forms in ((50.0, {"sdpa"}), (500.0, {"sdpa", "written"})):
        monkeypatch.setattr(memory, "room", lambda room=room: room)
        resolve(request(data, Train(steps=4)), network())
        assert tried == forms


def test_the_cut_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    fixed(monkeypatch, room=30.0, per_row=10.0)
    view = Watch()
    fit(request(data, Train(batch_tokens=8 * 32, steps=2)), network(), tmp_path, 9, view)
    assert [line for line in view.lines if "4 micro-batches of 2 rows a step instead of 1" in line]


# --- memory runs out in a step ---


class Hungry(LanguageModeling):
    """Memory runs out where a batch has more than `most` rows, in training or in an evaluation."""

    def __init__(self, most: int, error: Exception, where: str = "loss"):
        super().__init__(Processor())  # type: ignore[arg-type]
        self.most, self.error, self.where = most, error, where

    def fits(self, batch: Batch, where: str) -> bool:
        return where != self.where or len(batch["input_ids"]) <= self.most

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        if not self.fits(batch, "loss"):
            raise self.error
        return super().loss(net, batch, part)

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        if not self.fits(batch, "measure"):
            raise self.error
        return super().measure(net, batch)


ERRORS = {
    "a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "a processor": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_step_without_memory_is_done_again_in_smaller_pieces(name: str, data: Path) -> None:
    """From the first step on it is the training that was planned so."""
    loader = loaders(data)[0]
    cut = training(task=Hungry(2, ERRORS[name]), net=network(0.1), rows=8, accumulate=1)
    told = [each for event in cut.events(loader, None) for each in getattr(event, "incidents", ())]
    planned = training(net=network(0.1), rows=2, accumulate=4)
    list(planned.events(loader, None))
    assert [(each.kind, each.facts["rows"], each.facts["accumulate"]) for each in told] == [
        ("split", 4, 2),
        ("split", 2, 4),
    ]
    assert same(cut.final_weights(), planned.final_weights())
    assert cut.position.accumulate == 4


def test_what_torch_says_when_the_processor_has_no_memory_is_understood() -> None:
    with pytest.raises(RuntimeError) as problem:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.exhausted(problem.value)
    assert not memory.exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_the_batch_stays_the_same(data: Path) -> None:
    loader = loaders(data)[0]
    cut = training(Train(clip=0.0, warmup=0.0), task=Hungry(2, ERRORS["a GPU"]), optimizer="sgd", rows=8, accumulate=1)
    whole = training(Train(clip=0.0, warmup=0.0), optimizer="sgd", rows=8, accumulate=1)
    for made in (cut, whole):
        list(made.events(loader, None))
    for name, weights in whole.final_weights().items():
        assert torch.allclose(cut.final_weights()[name], weights, rtol=1e-4, atol=1e-6)
    assert cut.position.tokens == whole.position.tokens


def test_other_errors_are_not_swallowed(data: Path) -> None:
    made = training(task=Hungry(2, RuntimeError("a shape is wrong")), rows=8, accumulate=1)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        next(made.events(loaders(data)[0], None))
    assert made.position.accumulate == 0


def test_one_row_is_too_much(data: Path) -> None:
    made = training(task=Hungry(0, ERRORS["a GPU"]))
    with pytest.raises(UserError) as problem:
        next(made.events(loaders(data)[0], None))
    assert (problem.value.code, problem.value.exit) == ("E403", 5)


def test_an_evaluation_without_memory_is_done_again_in_smaller_pieces(data: Path) -> None:
    loader, held_out = loaders(data)
    hungry = training(task=Hungry(2, ERRORS["a GPU"], "measure"), evaluate_every=4)
    plain = training(evaluate_every=4)
    found = [next(e for e in made.events(loader, held_out) if isinstance(e, Evaluated)) for made in (hungry, plain)]
    assert found[0].metrics == pytest.approx(found[1].metrics)
    assert hungry.position.accumulate == 4


class Third(Hungry):
    """Memory runs out in the third step, whenever that is taken."""

    def __init__(self, loader: Loader):
        super().__init__(2, ERRORS["a GPU"])
        self.third = [loader.train(2, micro, Shape(PLAN.rows, PLAN.accumulate))["input_ids"] for micro in range(2)]

    def fits(self, batch: Batch, where: str) -> bool:
        return super().fits(batch, where) or not any(torch.equal(batch["input_ids"], ids) for ids in self.third)


def test_killed_around_a_split_is_uninterrupted(data: Path, tmp_path: Path) -> None:
    loader = loaders(data)[0]

    def run(out: Path, ends: int = 0) -> Result:
        out.mkdir(exist_ok=True)
        PLAN.write(out)
        return fit(request(data, None, Third(loader)), network(0.1), out, 9, Watch(ends))

    straight = run(tmp_path / "straight")
    told = [entry.get("incidents") for entry in log(tmp_path / "straight") if "loss" in entry]
    assert told == [None, None, [{"kind": "split", "step": 3, "rows": 2, "accumulate": 4}], *[None] * 5]
    for step in range(1, PLAN.steps + 1):
        out = tmp_path / str(step)
        with pytest.raises(KeyboardInterrupt):
            run(out, step)
        saved, _ = checkpoint.newest(out / CHECKPOINTS)
        assert (saved.position.accumulate if saved else 0) == (4 if step > 4 else 0)
        assert same(run(out).weights, straight.weights)
        assert log(out) == log(tmp_path / "straight")


# --- the kernel ends a run ---


def killed_run(data: Path, out: Path, made: Plan) -> None:
    """A real process that is killed in its fifth step."""
    made.write(out)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)

        class End(Watch):
            def progress(self, done: float, total: float, note: str) -> None:
                if done == 5:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            fit(request(data), network(0.1), out, 9, End())
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


CASES = {  # what the kernel counted meanwhile, the forecast in MB, and the micro-batches that follow
    "killed by someone": (0, 100, 2),
    "the kernel counted it": (1, 100, 4),
    "the forecast was near the limit": (0, 900, 4),
}


@linux
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_for_memory_goes_on_with_half_the_micro_batch(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, needed, accumulate = CASES[name]
    monkeypatch.setattr(memory, "room", lambda: 1e9)
    monkeypatch.setattr(memory, "_kills", lambda: 3)
    killed_run(data, tmp_path, replace(PLAN, memory_mb=needed))
    monkeypatch.setattr(memory, "_kills", lambda: 3 + counted)
    view = Watch()
    found = fit(request(data), network(0.1), tmp_path, 9, view)
    assert found.facts["steps"] == PLAN.steps
    assert (found.plan.rows, found.plan.accumulate) == (8 // accumulate, accumulate)
    assert Plan.read(tmp_path) == found.plan
    assert any("was killed" in line for line in view.lines) == (accumulate == 4)
    assert not (tmp_path / memory.RUNNING).exists()


def test_a_run_that_ends_in_order_leaves_no_mark(data: Path, tmp_path: Path) -> None:
    PLAN.write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(request(data), network(0.1), tmp_path, 9, Watch(ends=3))
    assert not (tmp_path / memory.RUNNING).exists()
    assert not memory.killed(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"boot": 1}', b"\xff"])
def test_a_mark_that_cannot_be_read_says_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / memory.RUNNING).write_bytes(content)
    assert not memory.killed(tmp_path)
