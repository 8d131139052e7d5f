"""One training on one, two and four ranks: the same batches, the same losses, the same weights on every rank."""

import errno
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from danlu import files, ranks
from danlu.config import Train
from danlu.data.loader import Loader, Shape, Share
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch
from danlu.train import checkpoint, distributed
from danlu.train.events import Stepped
from danlu.train.loop import Training, evaluate
from danlu.train.plan import Request, draft
from danlu.train.session import METRICS, Interrupted, fit
from danlu.train.sharding import Sharded
from danlu.train.tensor import Split, check
from tests.train import ranked
from tests.train.tiny import PLAN, Processor, loaders, network, opened, request

KEYS: dict[str, Any] = {"steps": 20, "batch_tokens": 8 * 32, "accumulate": 2, "dropout": 0.0, "precision": "fp32",
                        "attention": "sdpa", "optimizer": "adamw", "evaluate_every": 5, "save_every": 4,
                        "lr": 0.01}  # fmt: skip


# --- shares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("rows", [1, 4, 7, 8])
def test_every_row_is_the_share_of_one_rank(rows: int, count: int) -> None:
    shares = [list(range(rows)[Share(rank, count).of(rows)]) for rank in range(count)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) == math.ceil(rows / count)


def test_the_rows_of_a_step_do_not_depend_on_the_ranks(tmp_path: Path) -> None:
    whole, _ = loaders(tmp_path)
    for micro in range(2):
        wanted = whole.train(3, micro, Shape(4, 2))
        parts = [_loader(tmp_path, Share(rank, 4)).train(3, micro, Shape(4, 2)) for rank in range(4)]
        assert all(torch.equal(wanted[name], torch.cat([part[name] for part in parts])) for name in wanted)


def test_a_rank_without_rows_gets_padding_that_counts_for_nothing(tmp_path: Path) -> None:
    batch = _loader(tmp_path, Share(0, 4)).train(0, 0, Shape(2, 1))
    assert batch["input_ids"].shape == (1, 32)
    task = LanguageModeling(Processor())  # type: ignore[arg-type]
    assert int(task.counts(batch)["loss"]) == 0
    assert float(task.loss(network(), batch)["loss"].detach()) == 0


def _loader(folder: Path, share: Share) -> Loader:
    loader, _ = loaders(folder)
    loader.share = share
    return loader


# --- the same losses ---------------------------------------------------------------------------------


def losses(folder: Path, count: int, **how: Any) -> list[list[float]]:
    """Each rank's losses, and a hash of the weights that it ends with."""
    loaders(folder)  # written once, before the ranks read them
    return ranked.ranks(count, folder / f"of-{count}", lambda: _trained(folder, **how))


def _trained(
    folder: Path, steps: int = 20, optimizer: str = "adamw", double: bool = False, precision: str = "fp32",
    task: Any = None, rows: int = 4, parallel: str = "ddp", average: float = 0.0,
) -> list[Any]:  # fmt: skip
    task, net = task or LanguageModeling(Processor()), network()  # type: ignore[arg-type]
    plan = replace(PLAN, steps=steps, dropout=0.0, optimizer=optimizer, precision=precision, rows=rows)
    together = distributed.strategy(distributed.joined(task), task, parallel)
    loader, held_out = opened(folder)
    loader.share, held_out.share = together.share, together.mine
    training = Training(task, net.double() if double else net, Train(average=average), plan, 9, together)
    found = [e.loss if isinstance(e, Stepped) else e.metrics["loss"] for e in training.events(loader, held_out)]
    weights = files.tensors_hash(together.whole(training.final_weights()))
    ranks.leave()
    return [*found, weights]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_fp32_stays_within_a_millionth_for_20_steps(optimizer: str, tmp_path: Path) -> None:
    alone, *others = (losses(tmp_path, count, optimizer=optimizer) for count in (1, 2, 4))
    for each in others:
        assert all(rank == each[0] for rank in each), "the replicas have come apart"
        assert _apart(alone[0], each[0]) < 1e-6


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_float64_stays_the_same_for_the_whole_run(optimizer: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"steps": 60, "double": True, "optimizer": optimizer}
    alone, *others = (losses(tmp_path, count, **how) for count in (1, 2, 4))
    for each in others:
        assert all(rank == each[0] for rank in each)
        assert _apart(alone[0], each[0]) < 1e-9


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.long), "muon"])
def test_sharded_is_replicated(optimizer: str, tmp_path: Path) -> None:
    """Three ranks, so that no matrix is shared equally."""
    alone = losses(tmp_path, 1, optimizer=optimizer)[0]
    for count in (2, 3):
        each = losses(tmp_path, count, optimizer=optimizer, parallel="fsdp")
        assert all(rank == each[0] for rank in each)
        assert _apart(alone, each[0]) < 1e-6


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "tensor"])
def test_each_rank_takes_the_mean_of_what_it_holds(parallel: str, tmp_path: Path) -> None:
    """The losses of held-out rows are those of the means."""
    alone, without = losses(tmp_path, 1, average=0.9)[0], losses(tmp_path, 1)[0]
    assert _apart(alone, without) > 1e-3
    each = losses(tmp_path, 3 if parallel == "fsdp" else 2, parallel=parallel, average=0.9)
    assert all(rank == each[0] for rank in each)
    assert _apart(alone, each[0]) < 1e-6


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.long), "muon"])
def test_sharded_float64_stays_the_same_for_the_whole_run(optimizer: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"steps": 60, "double": True, "optimizer": optimizer}
    alone, sharded = losses(tmp_path, 1, **how), losses(tmp_path, 4, parallel="fsdp", **how)
    assert _apart(alone[0], sharded[0]) < 1e-9


def test_mean_of_means_is_another_training(tmp_path: Path) -> None:
    """Otherwise the comparisons above would hold for anything."""

    class Means(LanguageModeling):
        def counts(self, batch: Batch) -> Any:  # as if every rank had as many tokens as the first
            return {"loss": torch.tensor(60.0)} if ranks.rank() else super().counts(batch)

    wrong = losses(tmp_path, 2, task=Means(Processor()))  # type: ignore[arg-type]
    assert _apart(losses(tmp_path, 1)[0], wrong[0]) > 1e-3


def test_what_is_drawn_for_a_row_does_not_depend_on_the_ranks(tmp_path: Path) -> None:
    class Noisy(LanguageModeling):
        def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
            drawn = torch.randint(48, batch["input_ids"].shape, generator=generator)
            kept = torch.rand(drawn.shape, generator=generator) < 0.8
            return batch | {"input_ids": torch.where(kept, batch["input_ids"], drawn)}

    noisy = Noisy(Processor())  # type: ignore[arg-type]
    one, two = (losses(tmp_path, count, task=noisy) for count in (1, 2))
    assert _apart(one[0], two[0]) < 1e-6
    assert _apart(one[0], losses(tmp_path, 1)[0]) > 1e-3


BF16 = [("muon", "ddp"), ("sgd", "ddp"), ("muon", "fsdp"), ("adamw", "tensor")]


@pytest.mark.parametrize(("optimizer", "parallel"), BF16)
def test_bf16_is_the_same_on_every_rank_and_close_to_one(optimizer: str, parallel: str, tmp_path: Path) -> None:
    """Equal to the last bit among the ranks; apart from one rank by what bf16 rounds."""
    how = {"optimizer": optimizer, "precision": "bf16"}
    each = losses(tmp_path, 2, parallel=parallel, **how)
    assert each[0] == each[1]
    assert _apart(losses(tmp_path, 1, **how)[0], each[0]) < 0.03


def _apart(one: list[Any], other: list[Any]) -> float:
    return max(abs(a - b) for a, b in zip(one[:-1], other[:-1], strict=True))


def test_evaluation_of_several_ranks_is_that_of_one(tmp_path: Path) -> None:
    task, net = LanguageModeling(Processor()), network()  # type: ignore[arg-type]
    wanted = evaluate(task, net, loaders(tmp_path)[1], 3)

    def measured() -> dict[str, float]:
        together = distributed.joined(task)
        return evaluate(task, net, _held_out(tmp_path, together.mine), 3, ranks=together)

    for found in ranked.ranks(4, tmp_path / "ranks", measured):
        assert found == pytest.approx(wanted, rel=1e-6)


def _held_out(folder: Path, share: Share) -> Loader:
    _, loader = opened(folder)
    loader.share = share
    return loader


# --- begun on some ranks, continued on others --------------------------------------------------------


class Stop(Silent):
    """Asks its own process to stop after a step."""

    def __init__(self, step: int):
        self.step, self.lines = step, []

    def progress(self, done: float, total: float, note: str) -> None:
        if done == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def line(self, line: str) -> None:
        self.lines.append(line)


def _session(folder: Path, out: Path, stop: int, parallel: str = "ddp", **keys: Any) -> list[Any]:
    """A training in `out`, its LAST rank asked to stop after a step: how it ended, the weights, what was said."""
    out.mkdir(exist_ok=True)
    task = LanguageModeling(Processor())  # type: ignore[arg-type]
    asked = Request(task, Train(**(KEYS | keys)), *opened(folder), "random", 0.0, parallel)
    view = Stop(stop if ranks.rank() == ranks.count() - 1 else 0)
    try:
        return ["done", files.tensors_hash(fit(asked, network(), out, 9, view).weights), view.lines]
    except Interrupted:
        return ["stopped", "", view.lines]


@pytest.mark.parametrize("parallel", [("ddp", "ddp"), ("fsdp", "ddp"), ("ddp", "fsdp")])
def test_begun_on_two_continued_on_four_then_on_one(parallel: tuple[str, str], tmp_path: Path) -> None:
    ends = []
    loaders(tmp_path)
    for count, stop, how in ((2, 7, parallel[0]), (4, 13, parallel[1]), (1, 0, "auto")):
        work = partial(_session, tmp_path, tmp_path / "out", stop, how)
        ends.append(ranked.ranks(count, tmp_path / f"at-{stop}", work))
    assert [[end[0] for end in each] for each in ends] == [["stopped"] * 2, ["stopped"] * 4, ["done"]]
    assert any("2 devices" in line and "4" in line for line in ends[1][0][2])
    ranked.ranks(1, tmp_path / "straight", lambda: _session(tmp_path, tmp_path / "alone", 0))
    found, wanted = (_log(tmp_path / name / METRICS) for name in ("out", "alone"))
    assert [entry[:2] for entry in found] == [entry[:2] for entry in wanted]
    assert max(abs(a[2] - b[2]) for a, b in zip(found, wanted, strict=True)) < 1e-6


def _log(path: Path) -> list[tuple[int, int, float]]:
    """(step, tokens, loss) of each line; the tokens of an evaluation are -1."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(e["step"], e.get("tokens", -1), e["loss"] if "loss" in e else e["validation"]["loss"]) for e in entries]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_stopped_and_continued_on_as_many_ranks_is_exact(parallel: str, tmp_path: Path) -> None:
    keys = {"dropout": 0.1, "optimizer": "muon", "parallel": parallel, "average": 0.9}
    loaders(tmp_path)
    straight = ranked.ranks(2, tmp_path / "a", lambda: _session(tmp_path, tmp_path / "straight", 0, **keys))
    ranked.ranks(2, tmp_path / "b", lambda: _session(tmp_path, tmp_path / "out", 10, **keys))
    resumed = ranked.ranks(2, tmp_path / "c", lambda: _session(tmp_path, tmp_path / "out", 0, **keys))
    assert {end[1] for end in resumed} == {end[1] for end in straight}


# --- checkpoints written beside the training ---------------------------------------------------------


SAVED, LATER, KILLED = 8, 9, 9  # before step 10, the last one before the decay, which is saved too


class Kill(Silent):
    """Ends its process in the midst of a step, as SIGKILL does; says which step the training had come to before."""

    def __init__(self, report: Path, ready: Callable[[], bool]):
        self.report, self.ready, self.later = report, ready, threading.Event()

    def line(self, line: str) -> None: ...

    def progress(self, done: float, total: float, note: str) -> None:
        if done == LATER:
            self.later.set()
        if done == KILLED:
            limit = time.monotonic() + 30
            while not self.ready() and time.monotonic() < limit:
                time.sleep(0.01)
            (self.report / f"rank-{ranks.rank()}.json").write_text(str(int(done)))
            os._exit(9)


def _killed(folder: Path, report: Path, parallel: str, whole: bool, keys: dict[str, Any]) -> None:
    """A training whose checkpoint of step SAVED is written after step LATER, or never to its end; killed at KILLED."""
    root = folder / "out" / "checkpoints"
    view = Kill(report, lambda: not whole or checkpoint.folder_of(root, SAVED).exists())
    real = Sharded._save

    def late(self: Any, root: Path, state: Any, *rest: Any) -> None:
        if state.position.step == SAVED:
            view.later.wait()
            if not whole:
                checkpoint.staging_of(root, SAVED).mkdir(exist_ok=True)
                (checkpoint.staging_of(root, SAVED) / f"half-{ranks.rank()}").write_bytes(b"half")
                threading.Event().wait()
        real(self, root, state, *rest)

    Sharded._save = late  # type: ignore[method-assign]  # in a process of its own
    (folder / "out").mkdir(exist_ok=True)
    task = LanguageModeling(Processor())  # type: ignore[arg-type]
    request = Request(task, Train(**(KEYS | keys)), *opened(folder), "random", 0.0, parallel)
    fit(request, network(), folder / "out", 9, view)


@pytest.mark.parametrize(
    ("parallel", "optimizer", "whole"),
    [("fsdp", "muon", True), pytest.param("fsdp", "adamw", False, marks=pytest.mark.long), ("tensor", "adamw", True)],
)
def test_killed_while_a_checkpoint_is_written_beside_steps(
    parallel: str, optimizer: str, whole: bool, tmp_path: Path
) -> None:
    """What is saved late is of its own step, what is saved by half is none; both go on as if nothing had been."""
    keys = {"dropout": 0.1, "optimizer": optimizer}
    loaders(tmp_path)
    straight = ranked.ranks(2, tmp_path / "a", lambda: _session(tmp_path, tmp_path / "straight", 0, parallel, **keys))
    assert (
        ranked.ranks(2, tmp_path / "b", lambda: _killed(tmp_path, tmp_path / "b", parallel, whole, keys))
        == [KILLED] * 2
    )
    found, damaged = checkpoint.newest_step(tmp_path / "out" / "checkpoints")
    assert (found, damaged) == (SAVED if whole else 4, [])
    resumed = ranked.ranks(2, tmp_path / "c", lambda: _session(tmp_path, tmp_path / "out", 0, parallel, **keys))
    assert any(f"step {found} " in line for line in resumed[0][2])
    assert {end[1] for end in resumed} == {end[1] for end in straight}
    assert _log(tmp_path / "out" / METRICS) == _log(tmp_path / "straight" / METRICS)


def _filling(folder: Path, place: str) -> list[Any]:
    """A training whose disk is full at its first save, for rank 0 before or behind the rows, or for rank 1 at them."""
    owner, name, rank = {"staging": (files, "staged", 0), "sealing": (files, "seal", 0),
                         "writing": (dcp.HuggingFaceStorageWriter, "write_data", 1)}[place]  # fmt: skip
    real, calls = getattr(owner, name), []

    def full(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if ranks.rank() == rank and len(calls) == 1:
            raise UserError("E401", path=folder, free="0 MB") if place == "staging" else OSError(errno.ENOSPC, "full")
        return real(*arguments, **named)

    setattr(owner, name, full)
    return [*_session(folder, folder / place, 0, "fsdp"), len(calls)]


@pytest.mark.parametrize("place", ["staging", "writing", "sealing"])
def test_a_disk_that_fills_while_steps_go_on_is_said_and_tried_again(place: str, tmp_path: Path) -> None:
    loaders(tmp_path)
    straight = ranked.ranks(2, tmp_path / "a", lambda: _session(tmp_path, tmp_path / "straight", 0, "fsdp"))
    found = ranked.ranks(2, tmp_path / "b", lambda: _filling(tmp_path, place))
    assert [end[:2] for end in found] == [end[:2] for end in straight]
    said = [line for line in found[0][2] if "is not saved" in line]
    assert len(said) == 1 and "step 4 is not saved" in said[0], found[0][2]
    assert max(end[3] for end in found) > 1


def test_a_step_needs_a_row_for_every_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "9")
    with pytest.raises(UserError) as caught:
        draft(request(tmp_path, Train(**KEYS)), network())
    assert caught.value.code == "E123"
    assert caught.value.fields["least"] == 9 * 32


# --- heads and columns shared out --------------------------------------------------------------------


def _half(rows: int) -> dict[str, list[float]]:
    """Logits and gradients of a network whose core is split over the ranks, and how much one rank holds."""
    ranks.join()
    net, together = network(), Split(LanguageModeling(Processor()))  # type: ignore[arg-type]
    masters = together.masters(net, torch.float32)
    logits, loss = _pass(net, rows)
    loss.backward()
    masters.collect()
    whole = together.whole(masters.gradients)
    held = sum(p.numel() for p in masters.params.values())
    return {"logits": logits.flatten().tolist(), "held": [held]} | {n: g.flatten().tolist() for n, g in whole.items()}


def _pass(net: torch.nn.Module, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(48, (rows, 32), generator=torch.Generator().manual_seed(1))
    logits = net({"input_ids": ids})
    return logits.detach(), torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.roll(-1, 1).flatten())


def test_logits_and_gradients_of_split_heads_are_those_of_whole_ones(tmp_path: Path) -> None:
    net = network()
    logits, loss = _pass(net, 3)
    loss.backward()
    for found in ranked.ranks(2, tmp_path, lambda: _half(3)):
        assert torch.tensor(found["logits"]) == pytest.approx(logits.flatten(), abs=1e-5)
        for name, p in net.named_parameters():
            assert p.grad is not None
            apart = (torch.tensor(found[name]) - p.grad.flatten()).norm() / p.grad.norm()
            assert apart < 1e-5, name
        assert found["held"][0] < sum(p.numel() for p in net.parameters())


def test_split_heads_learn_as_whole_ones(tmp_path: Path) -> None:
    alone, split = losses(tmp_path, 1)[0], losses(tmp_path, 2, parallel="tensor")
    assert split[0] == split[1]
    assert _apart(alone, split[0]) < 1e-6


def test_split_heads_are_saved_and_continued_alone(tmp_path: Path) -> None:
    loaders(tmp_path)
    ranked.ranks(2, tmp_path / "a", lambda: _session(tmp_path, tmp_path / "out", 7, "tensor"))
    assert ranked.ranks(1, tmp_path / "b", lambda: _session(tmp_path, tmp_path / "out", 0))[0][0] == "done"
    ranked.ranks(1, tmp_path / "c", lambda: _session(tmp_path, tmp_path / "alone", 0))
    found, wanted = (_log(tmp_path / name / METRICS) for name in ("out", "alone"))
    assert max(abs(a[2] - b[2]) for a, b in zip(found, wanted, strict=True)) < 1e-6


def test_heads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        check(network().core.config, 3)
    assert caught.value.code == "E125"
