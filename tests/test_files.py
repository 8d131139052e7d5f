"""Writing that is whole or not at all: staged folders, manifests, locks, tensors, and every call failing once."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, safe_open
from safetensors.torch import save_file as their_save

from danlu import files
from danlu.errors import UserError

PRIMITIVES = ("_open", "_write", "_fsync", "_rename", "_unlink", "_sync_folder")
TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.bfloat16)}


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fill(folder: Path, text: str) -> None:
    """A folder of three files, one of them inside another folder."""
    with files.staged(folder) as out:
        files.write_text(out / "note.txt", text)
        (out / "inner").mkdir()
        files.write_json(out / "inner" / "note.json", {"text": text})
        files.write_tensors(out / "weights.safetensors", TENSORS)


# --- staged folders ---


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    fill(tmp_path / "made", "one")
    assert listing(tmp_path / "made") == [
        "inner", "inner/note.json", "manifest.json", "note.txt", "weights.safetensors"
    ]  # fmt: skip
    assert listing(tmp_path)[0] == "made"
    manifest = files.read_json(tmp_path / "made" / "manifest.json")
    assert manifest["schema"] == 1
    assert set(manifest["files"]) == {"inner/note.json", "note.txt", "weights.safetensors"}
    done = subprocess.run(["sha256sum", "note.txt"], cwd=tmp_path / "made", capture_output=True, text=True, check=True)
    assert manifest["files"]["note.txt"] == {"sha256": done.stdout.split()[0], "bytes": 3}
    assert files.damage(tmp_path / "made") == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_nothing_new(failure: type[BaseException], tmp_path: Path) -> None:
    fill(tmp_path / "made", "one")
    before = listing(tmp_path)
    with pytest.raises(UserError if failure is OSError else failure), files.staged(tmp_path / "made") as out:  # noqa: PT012
        (out / "half.txt").write_text("half")
        assert not (tmp_path / "made" / "half.txt").exists()
        raise failure
    assert listing(tmp_path) == before
    assert (tmp_path / "made" / "note.txt").read_text() == "one"
    with pytest.raises(UserError if failure is OSError else failure), files.staged(tmp_path / "never"):
        raise failure
    assert listing(tmp_path) == before


def test_what_a_killed_process_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "made.tmp").mkdir()
    (tmp_path / "made.tmp" / "old.txt").write_text("half")
    fill(tmp_path / "made", "two")
    assert "old.txt" not in " ".join(listing(tmp_path))
    assert listing(tmp_path)[0] == "made"
    assert not (tmp_path / "made.tmp").exists()


# --- damage ---


def test_every_kind_of_damage_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "made", "one")
    for name in ("note.txt", "inner/note.json", "weights.safetensors"):
        content = (tmp_path / "made" / name).read_bytes()
        for harm, shallow in _harms(content):
            path = tmp_path / "made" / name
            path.write_bytes(harm)
            assert files.damage(tmp_path / "made") == [name]
            assert files.damage(tmp_path / "made", deep=False) == ([name] if shallow else [])
        path.unlink()
        assert files.damage(tmp_path / "made", deep=False) == [name]
        path.write_bytes(content)
        assert files.damage(tmp_path / "made") == []


def _harms(content: bytes) -> Iterator[tuple[bytes, bool]]:
    """Damaged contents, and whether their size alone shows it."""
    for length in {0, 1, len(content) // 2, len(content) - 1}:
        yield content[:length], True
    for at in {0, len(content) // 2, len(content) - 1}:
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], False
    yield content + b"x", True


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"{}", b'{"files": 3}', b'{"files": {"note.txt": 7}}', None])
def test_a_damaged_manifest_is_damage(manifest: bytes | None, tmp_path: Path) -> None:
    fill(tmp_path / "made", "one")
    path = tmp_path / "made" / "manifest.json"
    if manifest is None:
        path.unlink()
    else:
        path.write_bytes(manifest)
    assert files.damage(tmp_path / "made") == ["manifest.json"]


# --- every call fails once ---


class Faults:
    """Counts the calls of the primitives and lets one of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.calls, self.failing, self.error = 0, 0, 0
        for name in PRIMITIVES:
            patch.setattr(files, name, self._counted(getattr(files, name)))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self.failing:
                raise OSError(self.error, os.strerror(self.error))
            return real(*arguments)

        return call

    def arm(self, failing: int, error: int) -> None:
        self.calls, self.failing, self.error = 0, failing, error


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # only time
    return Faults(monkeypatch)


Write = Callable[[Path, str], None]
Read = Callable[[Path], str]


def _read_folder(path: Path) -> str:
    assert files.damage(path) == []
    assert set(files.read_tensors(path / "weights.safetensors")) == {"a", "b"}
    return (path / "note.txt").read_text()


def _write_tensor(path: Path, text: str) -> None:
    files.write_tensors(path, {"text": torch.tensor(list(text.encode()), dtype=torch.uint8)})


def _read_tensor(path: Path) -> str:
    return bytes(load_file(path)["text"].tolist()).decode()


KINDS: dict[str, tuple[Write, Read]] = {
    "bytes": (lambda path, text: files.write_bytes(path, text.encode()), lambda path: path.read_text()),
    "json": (files.write_json, files.read_json),
    "tensors": (_write_tensor, _read_tensor),
    "folder": (fill, _read_folder),
}


def _problem(act: Callable[[], None]) -> UserError | None:
    try:
        act()
    except UserError as problem:
        return problem
    return None


@pytest.mark.parametrize(("error", "code"), [(errno.ENOSPC, "E401"), (errno.EIO, "E402"), (errno.EROFS, "E402")])
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_may_fail(kind: str, error: int, code: str, faults: Faults, tmp_path: Path) -> None:
    """At the 1st, 2nd, ... call: one clear error, what was there is valid, no litter, and the next try succeeds."""
    write, read = KINDS[kind]
    path, failed = tmp_path / "place", 0
    faults.arm(0, error)
    write(path, "old")
    while True:
        faults.arm(failed + 1, error)
        problem = _problem(lambda: write(path, "new"))
        if problem is None:
            break
        assert (problem.code, problem.exit, str(path) in problem.render()) == (code, 5, True)
        failed += 1
        faults.arm(0, error)
        assert read(path) in ("old", "new"), f"call {failed}"
        assert not [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")]
        write(path, "old")
        assert read(path) == "old"
    assert read(path) == "new"
    assert failed >= (12 if kind == "folder" else 4), "the harness saw too few calls"


def test_a_first_write_that_fails_leaves_no_place(faults: Faults, tmp_path: Path) -> None:
    for call in range(1, 5):
        faults.arm(call, errno.ENOSPC)
        with pytest.raises(UserError, match="no room left"):
            fill(tmp_path / "made", "one")
        assert listing(tmp_path) == []


def test_nothing_is_renamed_before_it_is_synced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The order of calls that a loss of power needs: data, sync, name, sync of the folder; the manifest last."""
    log: list[str] = []
    for name in PRIMITIVES:
        real = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *a, real=real, name=name: log.append(_event(name, a)) or real(*a))
    with files.staged(tmp_path / "made") as out:
        (out / "third-party.bin").write_bytes(b"written by someone else")
    third, manifest = log.index("_fsync third-party.bin"), log.index("_fsync manifest.json.tmp")
    assert third < manifest < log.index("_rename manifest.json.tmp") < log.index("_rename made.tmp")
    assert log[-1] == f"_sync_folder {tmp_path.name}"


def _event(name: str, arguments: tuple[Any, ...]) -> str:
    first = arguments[0]
    return f"{name} {Path(getattr(first, 'name', first)).name}"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(UserError) as problem:
        files.write_text(tmp_path / "a file" / "note.txt", "text")
    assert (problem.value.code, problem.value.exit) == ("E402", 5)


def test_json_never_holds_what_parsers_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert listing(tmp_path) == []


# --- removing ---


def test_removing(tmp_path: Path) -> None:
    fill(tmp_path / "made", "one")
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("made", "link", "absent"):
        files.remove(tmp_path / name)
    assert listing(tmp_path) == ["kept"]


def test_a_folder_half_deleted_is_not_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "made", "one")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        files.remove(tmp_path / "made")
    assert not (tmp_path / "made").exists()


# --- locks ---

HOLD = """
import sys
from pathlib import Path
from danlu import files
with files.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_held_elsewhere_names_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "pretrain-ab.lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"pretrain-ab is in use .*pid {holder.pid} since") as problem,
            files.locked(lock),
        ):
            pass
        assert (problem.value.code, problem.value.exit) == ("E110", 2)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with files.locked(lock):  # the system released it
            assert f"pid {os.getpid()} " in lock.read_text()


def test_a_lock_is_free_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError), files.locked(tmp_path / "x.lock"):
            raise RuntimeError
    with files.locked(tmp_path / "x.lock"), pytest.raises(UserError, match="in use"), files.locked(tmp_path / "x.lock"):
        pass


# --- tensors ---

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool]  # fmt: skip
SHAPES = [(), (1,), (0,), (3, 0, 2), (5,), (2, 3, 4)]


def sample(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    count = int(torch.tensor(shape).prod()) if shape else 1
    return (torch.arange(count) * 7 % 11 - 3).reshape(shape).to(dtype)


def test_tensors_are_read_by_safetensors_as_they_were(tmp_path: Path) -> None:
    tensors = {f"{dtype}/{shape}": sample(dtype, shape) for dtype in DTYPES for shape in SHAPES}
    tensors |= {"turned": sample(torch.float32, (4, 6)).T, "strided": sample(torch.bfloat16, (8, 3))[::2]}
    tensors["parameter"] = torch.nn.Parameter(torch.tensor([float("nan"), float("inf"), -0.0]))
    files.write_tensors(tmp_path / "ours.safetensors", tensors, {"format": "pt", "注": "é"})
    for read in (load_file, files.read_tensors):
        found = read(tmp_path / "ours.safetensors")
        assert set(found) == set(tensors)
        for name, tensor in tensors.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            assert bytes(files.tensor_bytes(found[name])) == bytes(files.tensor_bytes(tensor)), name
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "注": "é"}


def test_their_files_are_ours(tmp_path: Path) -> None:
    tensors = {str(dtype): sample(dtype, (3, 2)) for dtype in DTYPES}
    their_save(tensors, tmp_path / "theirs.safetensors")
    found = files.read_tensors(tmp_path / "theirs.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert files.tensors_hash(found) == files.tensors_hash(tensors)


def test_the_bytes_of_a_tensor() -> None:
    assert bytes(files.tensor_bytes(torch.tensor([1, -2], dtype=torch.int16))) == b"\x01\x00\xfe\xff"
    assert bytes(files.tensor_bytes(torch.tensor(1.0, dtype=torch.bfloat16))) == b"\x80\x3f"
    assert bytes(files.tensor_bytes(torch.tensor([True, False]))) == b"\x01\x00"


def test_the_hash_of_tensors_sees_names_types_shapes_and_bits() -> None:
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    others: list[dict[str, torch.Tensor]] = [
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.zeros(4), "b": torch.tensor([1.0, 1.0000001])},
        {"a": torch.zeros(4)},
    ]
    assert files.tensors_hash(dict(reversed(base.items()))) == files.tensors_hash(base)
    assert len({files.tensors_hash(each) for each in [base, *others]}) == 6


def test_damaged_tensors_are_a_users_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    files.write_tensors(path, TENSORS)
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with pytest.raises(UserError) as problem:
            files.read_tensors(path)
        assert (problem.value.code, problem.value.exit) == ("E301", 4)
    with pytest.raises(UserError, match="missing"):
        files.read_tensors(tmp_path / "absent.safetensors")
