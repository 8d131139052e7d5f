"""What does not fit is cut finer: before the first step, in a step, and after the kernel has ended a run."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu import messages, room
from danlu.config import Train
from danlu.data.loader import Loader, Shape
from danlu.errors import UserError
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch
from danlu.train import checkpoint, cost, mark, memory, pace, plan, probe, split
from danlu.train.events import Evaluated
from danlu.train.plan import Plan, resolve
from danlu.train.session import CHECKPOINTS, METRICS, Result, fit
from tests.train.tiny import PLAN, Processor, loaders, network, request, training

Weights = dict[str, Tensor]
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured through /proc")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of which nothing is known."""
    monkeypatch.setattr(cost, "cache_file", lambda: tmp_path / "machine.json")


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
    return [{key: value for key, value in entry.items() if key not in ("seconds", "waited")} for entry in entries]


# --- before the first step ---


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 12, 30])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_finer_cut_has_equal_parts_of_the_same_step(rows: int, accumulate: int) -> None:
    task, total, cuts = LanguageModeling(Processor()), rows * accumulate, [accumulate]  # type: ignore[arg-type]
    while (parts := split.finer(task, total // cuts[-1], cuts[-1])) is not None:
        assert total % parts == 0
        assert parts >= 2 * cuts[-1]
        cuts.append(parts)
    assert cuts[-1] == total or total < 2 * cuts[-1]
    task.coupled = "batch"  # type: ignore[misc]
    assert split.finer(task, 8, 1) is None


def test_samples_that_see_each_other_stay_together(data: Path) -> None:
    made = request(data, Train(batch_tokens=2**20))
    made.loader.context = 2048  # so that few rows hold many tokens
    assert split.parts(made, 64, 1) > 1
    made.task.coupled = "batch"  # type: ignore[misc]
    assert split.parts(made, 64, 1) == 1
    assert split.parts(replace(made, train=Train(accumulate=4)), 64, 1) == 4, "who asks for it gets it"
    with pytest.raises(UserError) as caught:
        split.parts(made, 64, 2)
    assert caught.value.code == "E147"


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "peak", lambda precision, where="cpu": 1e11)
    monkeypatch.setattr(pace, "step_seconds", lambda *_, **__: 0.01)


def fixed(monkeypatch: pytest.MonkeyPatch, free: float, per_row: float) -> list[int]:
    """A machine of `free` bytes on which each row takes `per_row`; what is probed is listed."""
    probed: list[int] = []

    def step(request: Any, net: Any, made: Plan) -> None:
        probed.append(made.rows)

    def peak(work: Any) -> float:
        work()
        return probed[-1] * per_row

    monkeypatch.setattr(room, "limit", lambda: free)
    monkeypatch.setattr(split, "one_step", step)
    monkeypatch.setattr(probe, "peak", peak)
    monkeypatch.setattr(memory, "forecast", lambda net, made: made.rows * per_row)
    return probed


def test_micro_batches_are_cut_until_one_fits(data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    train = Train(batch_tokens=8 * 32, steps=4, recompute=False)
    whole = resolve(request(data, train), network())
    assert (whole.rows, whole.accumulate, whole.unsplit) == (8, 1, 0)
    probed = fixed(monkeypatch, free=30.0, per_row=10.0)  # 27 may be taken
    cut = resolve(request(data, train), network())
    assert (cut.rows, cut.accumulate, cut.unsplit) == (2, 4, 1)
    assert probed == [4, 2]  # eight rows are too many by any measure
    assert replace(cut, rows=8, accumulate=1, unsplit=0, memory_mb=0) == replace(whole, memory_mb=0)


def test_activations_are_computed_again_where_only_slow_cuts_would_fit(
    data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None
) -> None:
    """Rows of 32 tokens: every cut is inefficient, so the whole step comes first, computed again."""
    monkeypatch.setattr(room, "limit", lambda: 100.0)
    needed = {"none": 10.0, "blocks": 2.0}
    monkeypatch.setattr(memory, "forecast", lambda net, made: 40 + made.rows * needed[made.checkpointing])
    monkeypatch.setattr(split, "_SURE", 1.0)
    monkeypatch.setattr(probe, "peak", lambda work: None)
    found = {}
    for asked in ("auto", True, False):
        train = Train(batch_tokens=8 * 32, steps=4, recompute=asked)  # type: ignore[arg-type]
        made = resolve(request(data, train), network())
        found[asked] = (made.checkpointing, made.rows, made.accumulate)
    assert found == {"auto": ("blocks", 8, 1), True: ("blocks", 8, 1), False: ("none", 4, 2)}
    net = network()
    plan.prepare(net, replace(PLAN, checkpointing="blocks"))
    assert net.core.checkpointing == "blocks"


@pytest.mark.parametrize(("step", "rows"), [(2.8, 8), (5.6, 4), (11.0, 2), (1000.0, 1)])
def test_a_micro_batch_is_over_within_seconds(
    step: float, rows: int, data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None
) -> None:
    """A signal is heard between two of them, and ten seconds are promised."""
    monkeypatch.setattr(pace, "step_seconds", lambda *_, **__: step)
    made = resolve(request(data, Train(batch_tokens=8 * 32, steps=4)), network())
    assert (made.rows, made.accumulate, made.unsplit) == (rows, 8 // rows, 0)


def test_small_models_are_not_probed(data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    probed = fixed(monkeypatch, free=1000.0, per_row=10.0)
    resolve(request(data, Train(batch_tokens=8 * 32, steps=4)), network())
    assert probed == []


def test_not_one_row_fits(data: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    fixed(monkeypatch, free=5e6, per_row=10e6)
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

    monkeypatch.setattr(pace, "step_seconds", seconds)
    monkeypatch.setattr(memory, "forecast", lambda net, made: 100.0 if made.attention == "written" else 1.0)
    for free, forms in ((50.0, {"sdpa"}), (500.0, {"sdpa", "written"})):
        monkeypatch.setattr(room, "limit", lambda free=free: free)
        resolve(request(data, Train(steps=4)), network())
        assert tried == forms


def test_the_cut_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    fixed(monkeypatch, free=30.0, per_row=10.0)
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
    assert probe.exhausted(problem.value)
    assert not probe.exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


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


OURS = "/groups/ours/memory.events"
CASES = {  # what the kernel counted before and after, the forecast in MB of 1000, and the micro-batches that follow
    "killed by someone": ({OURS: 3, "machine": 5}, {OURS: 3, "machine": 5}, 100, 2),
    "the kernel counted it": ({OURS: 3, "machine": 5}, {OURS: 4, "machine": 6}, 100, 4),
    "killed by someone near the limit": ({OURS: 3, "machine": 5}, {OURS: 3, "machine": 5}, 900, 2),
    "near the limit while another group lost one": ({OURS: 3, "machine": 5}, {OURS: 3, "machine": 6}, 900, 2),
    "from another group, near the limit": ({OURS: 3, "machine": 5}, {"/elsewhere": 0, "machine": 6}, 900, 4),
    "from another group, far from it": ({OURS: 3, "machine": 5}, {"/elsewhere": 0, "machine": 6}, 100, 2),
    "from another group, by someone": ({OURS: 3, "machine": 5}, {"/elsewhere": 9, "machine": 5}, 900, 2),
    "nothing is counted, near the limit": ({}, {}, 900, 4),
    "nothing is counted, far from it": ({}, {}, 100, 2),
}


@linux
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_for_memory_goes_on_with_half_the_micro_batch(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, needed, accumulate = CASES[name]
    monkeypatch.setattr(room, "limit", lambda: 1e9)
    monkeypatch.setattr(room, "kills", lambda: before)
    killed_run(data, tmp_path, replace(PLAN, memory_mb=needed))
    monkeypatch.setattr(room, "kills", lambda: after)
    view = Watch()
    found = fit(request(data), network(0.1), tmp_path, 9, view)
    assert found.facts["steps"] == PLAN.steps
    assert (found.plan.rows, found.plan.accumulate) == (8 // accumulate, accumulate)
    assert Plan.read(tmp_path) == found.plan
    assert any("was killed" in line for line in view.lines) == (accumulate == 4)
    assert not (tmp_path / mark.RUNNING).exists()


def test_a_machine_that_was_restarted_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "kills", lambda: {OURS: 9})
    table = {"kills": {OURS: 3}, "boot": "another", "needed": 9, "room": 10}
    for boot, expected in (("another", True), ("this", False)):
        monkeypatch.setattr(room, "boot", lambda boot=boot: boot)
        (tmp_path / mark.RUNNING).write_text(json.dumps(table))
        assert mark.killed(tmp_path) == expected


def test_a_run_that_ends_in_order_leaves_no_mark(data: Path, tmp_path: Path) -> None:
    PLAN.write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(request(data), network(0.1), tmp_path, 9, Watch(ends=3))
    assert not (tmp_path / mark.RUNNING).exists()
    assert not mark.killed(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"boot": 1}', b"\xff"])
def test_a_mark_that_cannot_be_read_says_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / mark.RUNNING).write_bytes(content)
    assert not mark.killed(tmp_path)
