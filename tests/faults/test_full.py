"""A full disk: the training goes on, says what it lacks, tries again; the third time it ends, and nothing is lost."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from danlu import disk, messages
from danlu.errors import UserError
from danlu.train import checkpoint
from danlu.train.plan import Request
from danlu.train.session import CHECKPOINTS, fit
from tests.faults.disk import Change, tap
from tests.faults.works import Watching, Work, outcome
from tests.tiny_life import RECIPE, project

WORK = Work("gpt", steps=12)  # saves every second step
Outcome = dict[str, object]


@pytest.fixture(autouse=True)
def english_and_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    messages.use("en")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def asked(tmp_path: Path) -> Request:
    return WORK.request(tmp_path / "data")


def begun(out: Path) -> Path:
    out.mkdir(parents=True)
    WORK.plan.write(out)
    return out


def trained(asked: Request, out: Path) -> tuple[Outcome, list[str]]:
    view = Watching()
    return outcome(fit(asked, WORK.network(), out, 9, view), out), view.lines


class Full:
    """A disk on which no file of these steps' checkpoints can be written; None = of no step."""

    def __init__(self, steps: frozenset[int] | None):
        self.steps = steps

    def meet(self, change: Change) -> None:
        folder = change.path.parent.name
        if change.kind != "write" or not folder.startswith("step-"):
            return
        if self.steps is None or int(folder[5:12]) in self.steps:
            change.half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("steps", [{2}, {6}, {12}, {2, 4, 8, 10}])
def test_a_save_without_room_is_passed_over(
    steps: set[int], asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, log and figures are those of a disk that was never full; what was half written is gone."""
    wanted, quiet = trained(asked, begun(tmp_path / "straight"))
    tap(Full(frozenset(steps)).meet, monkeypatch.setattr)
    found, lines = trained(asked, begun(tmp_path / "full"))
    told = [line for line in lines if "not saved" in line]
    kept = ("weights", "log", "facts")
    assert {name: found[name] for name in kept} == {name: wanted[name] for name in kept}
    assert [f"step {step} " in line for step, line in zip(sorted(steps), told, strict=True)] == [True] * len(steps)
    assert not [line for line in quiet if "not saved" in line]
    assert not list((tmp_path / "full").rglob("*.tmp*"))


def test_the_warning_names_what_is_needed_and_what_is_free(
    asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tap(Full(frozenset({6})).meet, monkeypatch.setattr)
    monkeypatch.setattr(disk, "free", lambda path: 123_000_000)
    _, lines = trained(asked, begun(tmp_path / "out"))
    (line,) = (line for line in lines if "not saved" in line)
    assert re.match(r"  step 6 is not saved: a checkpoint takes \d+ kB, 123 MB are free", line)
    assert "1 of 3" in line and "the last one saved is step 4" in line


def test_the_third_save_without_room_ends_it(asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 5, with the last good step; with room again it goes on to the same end."""
    wanted, _ = trained(asked, begun(tmp_path / "straight"))
    out = begun(tmp_path / "full")
    with monkeypatch.context() as patch:
        tap(Full(frozenset({6, 8, 10})).meet, patch.setattr)
        with pytest.raises(UserError) as problem:
            trained(asked, out)
    assert (problem.value.code, problem.value.exit) == ("E406", 5)
    assert (problem.value.fields["step"], problem.value.fields["good"]) == (10, 4)
    assert "the last one is of step 4" in problem.value.render()
    found, damaged = checkpoint.newest(out / CHECKPOINTS)
    assert found is not None and (found.position.step, damaged) == (4, [])
    assert trained(asked, out)[0] == wanted


def test_a_save_that_succeeds_in_between_begins_the_count_anew(
    asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tap(Full(frozenset({2, 4, 8, 10})).meet, monkeypatch.setattr)
    _, lines = trained(asked, begun(tmp_path / "out"))
    assert [line.split("tries again (")[1][0] for line in lines if "not saved" in line] == ["1", "2", "1", "2"]


def test_a_roll_back_goes_to_what_was_saved(asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tap(Full(frozenset({4, 6})).meet, monkeypatch.setattr)
    anchors: dict[int, int] = {}
    real = checkpoint.save

    def save(root: Path, made: checkpoint.Checkpoint, **rest: frozenset[int]) -> None:
        real(root, made, **rest)
        anchors[made.position.step] = made.position.anchor

    monkeypatch.setattr(checkpoint, "save", save)
    trained(asked, begun(tmp_path / "out"))
    assert anchors == {step: step for step in (2, 8, 10, 12)}


def test_without_room_for_two_checkpoints_nothing_is_trained(
    asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = begun(tmp_path / "out")
    monkeypatch.setattr(disk, "free", lambda path: 9_000)
    with pytest.raises(UserError) as problem:
        trained(asked, out)
    assert (problem.value.code, problem.value.exit) == ("E407", 5)
    assert "9 kB are free" in problem.value.render()
    assert not (out / "metrics.jsonl").exists(), "no step was taken"


# --- the command on a small disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight megabytes of memory as a disk, where this system lets us have it."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def command(recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "danlu", "run", str(recipe), "--to", "pretrain", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DANLU_LANG": "en"}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def fill(disk: Path, left: int) -> Path:
    """Leave so many bytes free."""
    state = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - left)))
    return filler


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "stage"),
    [
        pytest.param(24_000, "prepare", marks=pytest.mark.long),
        (150_000, "prepare"),
        (400_000, "pretrain"),
    ],
)
def test_the_command_on_a_full_disk(left: int, stage: str, small_disk: Path) -> None:
    """One clear error and exit 5 wherever it is full; with room the same command goes on."""
    text = RECIPE.replace("precision =", 'attention = "sdpa"\nprecision =')
    recipe = project(small_disk / "tiny", text, count=1200)
    filler = fill(small_disk, left)
    done = command(recipe)
    assert done.returncode == 5, done.stderr
    assert "error[E40" in done.stderr and "Traceback" not in done.stderr
    assert f"▸ {stage}" in done.stderr
    filler.unlink()
    assert not list(small_disk.glob("tiny/runs/store/prepare-*.partial")), "what would not be used is gone"
    assert command(recipe).returncode == 0
