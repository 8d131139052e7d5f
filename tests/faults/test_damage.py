"""Damaged checkpoints: cut at every byte, and 2,000 mutations; the newest whole one is used, and the damage named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from danlu import files
from danlu.errors import UserError
from danlu.randomness import stream
from danlu.train import checkpoint
from danlu.train.checkpoint import Checkpoint, Position
from danlu.train.session import CHECKPOINTS, fit
from tests.faults.works import Watching, Work, outcome

MUTATIONS = 2000
NEWER, OLDER = "step-0000004", "step-0000002"


def made(step: int) -> Checkpoint:
    """A checkpoint of a few hundred bytes."""
    weights = {"a": torch.arange(6.0).reshape(2, 3) + step, "b": torch.ones(3) / step}
    moments = {f"model/mean/{name}": tensor * 0.1 for name, tensor in weights.items()}
    return Checkpoint(Position(step, 100 * step, best=2.5, best_step=1), weights, moments, {"a": torch.zeros(2, 3)})


def content(found: Checkpoint | None) -> tuple[Position, str, str, str]:
    assert found is not None
    return (found.position, *(files.tensors_hash(t or {}) for t in (found.weights, found.optimizer, found.best)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for step in (2, 4):
        checkpoint.save(tmp_path, made(step), keep=frozenset({2}))
    assert content(checkpoint.newest(tmp_path)[0]) == content(made(4))
    return tmp_path


def passed_over(root: Path) -> None:
    """The newer checkpoint is named as damaged, and the older one used bit by bit."""
    found, damaged = checkpoint.newest(root)
    assert content(found) == content(made(2))
    assert len(damaged) == 1
    assert damaged[0].startswith(f"{NEWER} (")


def test_cut_at_every_byte(root: Path) -> None:
    places = 0
    for path in sorted((root / NEWER).iterdir()):
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            passed_over(root)
        path.write_bytes(whole)
        places += len(whole)
    assert content(checkpoint.newest(root)[0]) == content(made(4))
    assert places > 1000


# --- mutations: each changes some file of a folder ---


def _flip(path: Path, random: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    for at in random.integers(0, len(data), int(random.integers(1, 9))):
        data[at] ^= 1 << int(random.integers(0, 8))
    path.write_bytes(data)


def _one_bit(path: Path, random: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[int(random.integers(0, len(data)))] ^= 1 << int(random.integers(0, 8))
    path.write_bytes(data)


def _zeros(path: Path, random: np.random.Generator) -> None:
    """A run of zeros, as a block that was never written."""
    data = bytearray(path.read_bytes())
    first, size = int(random.integers(0, len(data))), int(random.integers(1, 65))
    data[first : first + size] = bytes(len(data[first : first + size]))
    path.write_bytes(data)


def _missing(path: Path, random: np.random.Generator) -> None:
    path.unlink()


def _longer(path: Path, random: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes() + random.bytes(int(random.integers(1, 100))))


def _other_step(path: Path, random: np.random.Generator) -> None:
    """The file of the other checkpoint: valid, and of the same size."""
    shutil.copyfile(path.parent.parent / OLDER / path.name, path)


def _rearranged(path: Path, random: np.random.Generator) -> None:
    """Two pieces of a file change places."""
    data = path.read_bytes()
    at = int(random.integers(1, len(data)))
    path.write_bytes(data[at:] + data[:at])


def _a_folder(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()


MUTANTS: list[Callable[[Path, np.random.Generator], None]] = [
    _flip, _one_bit, _zeros, _missing, _longer, _other_step, _rearranged, _a_folder,
]  # fmt: skip


def _mutated(folder: Path, random: np.random.Generator) -> bool:
    """Change a file of the folder; whether anything is different now."""
    path = sorted(folder.iterdir())[int(random.integers(0, 5))]
    before = path.read_bytes()
    MUTANTS[int(random.integers(0, len(MUTANTS)))](path, random)
    return not path.is_file() or path.read_bytes() != before


def _restored(root: Path, kept: Path) -> None:
    for name in (NEWER, OLDER):
        shutil.rmtree(root / name)
        shutil.copytree(kept / name, root / name)


@pytest.mark.slow
def test_no_mutation_is_loaded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every twentieth time both checkpoints are damaged: E307 names them, exit 4."""
    kept, random, seen = tmp_path_factory.mktemp("kept"), stream(1, "mutations"), 0
    shutil.copytree(root, kept, dirs_exist_ok=True)
    while seen < MUTATIONS:
        if not _mutated(root / NEWER, random):
            continue
        seen += 1
        passed_over(root)
        if seen % 20 == 0:
            (root / OLDER / "position.json").write_bytes(b"")
            with pytest.raises(UserError) as problem:
                checkpoint.newest(root)
            assert (problem.value.code, problem.value.exit) == ("E307", 4)
            assert NEWER in problem.value.render() and OLDER in problem.value.render()
        _restored(root, kept)
    assert content(checkpoint.newest(root)[0]) == content(made(4))


# --- what is not a checkpoint ---


def test_a_folder_of_another_step_is_no_checkpoint(root: Path) -> None:
    """Whole in itself, but under a name that is not its own: it would stay the newest for ever."""
    (root / NEWER).rename(root / "step-0000009")
    found, damaged = checkpoint.newest(root)
    assert content(found) == content(made(2))
    assert damaged == ["step-0000009 (position.json)"]


@pytest.mark.parametrize("lost", ["weights.safetensors", "optimizer.safetensors", "position.json"])
def test_a_sealed_folder_without_its_files_is_no_checkpoint(lost: str, root: Path) -> None:
    (root / NEWER / lost).unlink()
    files.seal(root / NEWER)
    found, damaged = checkpoint.newest(root)
    assert content(found) == content(made(2))
    assert damaged == [f"{NEWER} ({lost})"]


def test_best_weights_that_nobody_sealed_are_not_read(root: Path) -> None:
    last = made(6)
    last.best = None
    checkpoint.save(root, last)
    shutil.copyfile(root / "step-0000006" / "weights.safetensors", root / "step-0000006" / "best.safetensors")
    found, _ = checkpoint.newest(root)
    assert found is not None
    assert found.best is None


def test_what_lies_beside_is_no_hindrance(root: Path) -> None:
    """Copies made by hand, notes, and what killed processes left: passed over; the last is swept by the next save."""
    for name in ("step-0000004 copy", "step-best", "step-", "step-0000006.tmp", "step-0000002.77.del"):
        shutil.copytree(root / NEWER, root / name)
    (root / "step-0000008").write_text("a file")
    assert content(checkpoint.newest(root)[0]) == content(made(4))
    checkpoint.save(root, made(6))
    left = {"step-0000004 copy", "step-best", "step-", "step-0000006", "step-0000008"}
    assert {path.name for path in root.iterdir()} == left


def test_steps_are_ordered_as_numbers(root: Path) -> None:
    for step in (9_999_999, 10_000_000):
        checkpoint.save(root, made(step), keep=frozenset({2, 4, 9_999_999}))
    assert content(checkpoint.newest(root)[0]) == content(made(10_000_000))


def test_a_training_says_that_it_uses_an_older_one(tmp_path: Path) -> None:
    """From plan to weights: stopped at step 7, the checkpoint of step 6 is damaged, and the end is the same."""
    work, threads = Work("pair", steps=8), torch.get_num_threads()
    request = work.request(tmp_path / "data")
    outs = [tmp_path / name for name in ("straight", "killed")]
    for out in outs:
        work.plan.write(out)
    wanted = outcome(fit(request, work.network(), outs[0], 9, Watching()), outs[0])

    def stop(done: float, total: float, note: str) -> None:
        if done == 7:
            raise KeyboardInterrupt

    view = Watching()
    view.progress = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fit(request, work.network(), outs[1], 9, view)
    harmed = outs[1] / CHECKPOINTS / "step-0000006" / "weights.safetensors"
    harmed.write_bytes(harmed.read_bytes()[:-1])
    view = Watching()
    found = outcome(fit(request, work.network(), outs[1], 9, view), outs[1])
    assert any("step-0000006 (weights.safetensors)" in line for line in view.lines)
    assert found == wanted
    torch.set_num_threads(threads)
