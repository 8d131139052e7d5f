"""Every change of the disk of a small training fails, in six ways: one clear error, nothing lost, and it goes on."""

import errno
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import files
from danlu.errors import UserError
from danlu.train import checkpoint
from danlu.train.plan import Request
from danlu.train.session import CHECKPOINTS, fit
from tests.faults.disk import Change, tap
from tests.faults.works import Watching, Work, outcome

WORK = Work("pair", steps=4)
FILLS = frozenset({"open", "write", "fsync", "mkdir"})  # what a full disk refuses


@dataclass(frozen=True)
class Fault:
    """What goes wrong, with which error code; `lasting`: from then on, for the `kinds` of change named."""

    number: int
    code: str
    half: bool = False
    lasting: frozenset[str] = frozenset()


FAULTS = {
    "no space": Fault(errno.ENOSPC, "E401"),
    "short write": Fault(errno.ENOSPC, "E401", half=True),
    "I/O error": Fault(errno.EIO, "E402"),
    "access denied": Fault(errno.EACCES, "E402"),
    "a disk that stays full": Fault(errno.ENOSPC, "E401", lasting=FILLS),
    "a disk that turns read-only": Fault(errno.EROFS, "E402", lasting=FILLS | {"sync", "rename", "unlink", "rmdir"}),
}


@dataclass
class Failing:
    """Lets the change of number `at` fail, where it is of the kind that can; 0 = none."""

    fault: Fault
    at: int = 0
    seen: int = 0
    happened: list[str] = field(default_factory=list)

    def meet(self, change: Change) -> None:
        self.seen += 1
        later = self.seen > self.at and change.kind in self.fault.lasting
        if not self.at or not (self.seen == self.at or later):
            return
        self.happened.append(f"{change.kind} {change.path}")
        if self.fault.half:
            change.half()
        raise OSError(self.fault.number, os.strerror(self.fault.number))


@pytest.fixture
def request_of(tmp_path: Path) -> Iterator[Request]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield WORK.request(tmp_path / "data")
    torch.set_num_threads(threads)


def trained(request: Request, out: Path) -> dict[str, Any]:
    return outcome(fit(request, WORK.network(), out, 9, Watching()), out)


def begun(out: Path) -> Path:
    out.mkdir(parents=True)
    WORK.plan.write(out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * bool(fault.lasting)) for name, fault in FAULTS.items()]
)
def test_every_change_may_fail(name: str, request_of: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing, saved = Failing(FAULTS[name]), Saved(monkeypatch)
    tap(failing.meet, monkeypatch.setattr)
    straight = begun(tmp_path / "straight")
    failing.seen = 0
    wanted = trained(request_of, straight)
    total, refused, told = failing.seen, 0, 0
    for at in range(1, total + 1):
        out = begun(tmp_path / str(at))
        saved.step, failing.seen, failing.at, failing.happened = 0, 0, at, []
        problem, lines = _problem(request_of, out)
        told += bool(lines)
        if problem:
            refused += 1
            assert (problem.code, problem.exit) == (FAULTS[name].code, 5)
            assert str(out) in problem.render().splitlines()[0]
        failing.at = 0
        assert failing.happened, at
        found, damaged = checkpoint.newest(out / CHECKPOINTS)
        assert damaged == [], failing.happened
        assert (found.position.step if found else 0) >= saved.step, failing.happened
        _same(trained(request_of, out), wanted, failing.happened[0])
    print(f"{name}: {total} changes, {refused} errors, {told} saves passed over")
    assert refused + told > total * 0.7, "most changes matter"
    assert bool(told) == (FAULTS[name].code == "E401"), "only a full disk is waited for"


class Saved:
    """The step of the last checkpoint that was saved to the end."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.step, self._real = 0, checkpoint.save
        patch.setattr(checkpoint, "save", self._save)

    def _save(self, root: Path, made: checkpoint.Checkpoint, **options: Any) -> None:
        self._real(root, made, **options)
        self.step = made.position.step


def _problem(request: Request, out: Path) -> tuple[UserError | None, list[str]]:
    """The error of a training, and what it said of saves that it passed over."""
    view, problem = Watching(), None
    try:
        fit(request, WORK.network(), out, 9, view)
    except UserError as error:
        problem = error
    return problem, [line for line in view.lines if "not saved" in line]


def _same(found: dict[str, Any], wanted: dict[str, Any], fault: str) -> None:
    """Equal in all but a line of the log that could not be written."""
    assert found | {"log": []} == wanted | {"log": []}, fault
    lost = [line for line in wanted["log"] if line not in found["log"]]
    assert [line for line in found["log"] if line not in wanted["log"]] == [], fault
    assert len(lost) <= (2 if "metrics" in fault else 0), (fault, lost)


def test_a_system_that_writes_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may take fewer bytes than it was given: what is left is written too."""
    real = files._open
    monkeypatch.setattr(files, "_open", lambda path, mode: _Slow(path) if mode == "wb" else real(path, mode))
    request, threads = WORK.request(tmp_path / "data"), torch.get_num_threads()
    trained(request, begun(tmp_path / "out"))
    torch.set_num_threads(threads)
    found, damaged = checkpoint.newest(tmp_path / "out" / CHECKPOINTS)
    assert found is not None
    assert (found.position.step, damaged) == (4, [])


class _Slow(io.BufferedWriter):
    def __init__(self, path: Path):
        super().__init__(_Piecewise(path, "wb"), buffer_size=16)


class _Piecewise(io.FileIO):
    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:700])


@pytest.mark.parametrize("call", ["_fsync", "_sync_folder", "_open"])
def test_sealing_a_folder_may_fail(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder is sealed where it was built, outside of any staging."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "model.bin").write_bytes(b"model")

    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, call, fail)
    with pytest.raises(UserError) as problem:
        files.seal(tmp_path)
    assert (problem.value.code, problem.value.exit) == ("E402", 5)
    assert files.damage(tmp_path) == ["manifest.json"]
