"""A loss of power after every call of three saves: what was not synced is lost, torn or zero, and nothing else is.

The calls are replayed on a disk that is only a description. A folder remembers the changes of its names since its last
sync, and a loss of power keeps some first part of them; a file remembers what it held at its last sync, and keeps that,
all, a part, or zeros of the right length (Pillai et al. 2014, OSDI; file systems that journal their names in order).
Each state is laid out as real files, and `checkpoint.newest` must find the last checkpoint whose save had returned, or
the one after it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from danlu.errors import UserError
from danlu.randomness import stream
from danlu.train import checkpoint
from tests.faults.disk import Change, tap
from tests.faults.test_damage import content, made

STATES = 12  # after each call
STEPS = (2, 4, 6)


@dataclass
class File:
    held: bytes = b""
    synced: bytes = b""

    def lost(self, random: np.random.Generator) -> bytes:
        if self.held == self.synced:
            return self.held
        cut = int(random.integers(0, len(self.held) + 1))
        return (self.synced, self.held, self.held[:cut], bytes(len(self.held)))[int(random.integers(0, 4))]


@dataclass
class Folder:
    synced: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[dict[str, File | Folder | None]] = field(default_factory=list)  # of names, since the last sync

    def names(self, kept: int | None = None) -> dict[str, File | Folder]:
        """What it holds, or would hold with the first `kept` changes only."""
        found: dict[str, File | Folder | None] = dict(self.synced)
        for change in self.changes[:kept]:
            found |= change
        return {name: node for name, node in found.items() if node is not None}

    def sync(self) -> None:
        self.synced, self.changes = self.names(), []

    def lost(self, random: np.random.Generator, place: Path) -> None:
        """Lay out in `place` what is left of this folder after a loss of power."""
        place.mkdir()
        for name, node in self.names(int(random.integers(0, len(self.changes) + 1))).items():
            if isinstance(node, Folder):
                node.lost(random, place / name)
            else:
                (place / name).write_bytes(node.lost(random))


class Disk:
    """Replays the changes of the disk below `root`; those in `ignored` do nothing."""

    def __init__(self, root: Path, ignored: frozenset[str] = frozenset()):
        self.root, self.top, self.ignored, self.changes = root, Folder(), ignored, 0

    def __call__(self, change: Change) -> None:
        self.changes += 1
        if change.kind not in self.ignored:
            getattr(self, change.kind)(change)

    def _at(self, path: Path) -> File | Folder:
        node: File | Folder = self.top
        for name in path.relative_to(self.root).parts:
            assert isinstance(node, Folder)
            node = node.names()[name]
        return node

    def _rename(self, path: Path, change: dict[str, File | Folder | None]) -> None:
        folder = self._at(path.parent)
        assert isinstance(folder, Folder)
        folder.changes.append(change)

    def open(self, change: Change) -> None:
        if change.arguments[1] == "wb":
            self._rename(change.path, {change.path.name: File()})

    def write(self, change: Change) -> None:
        node = self._at(change.path)
        assert isinstance(node, File)
        node.held += bytes(change.arguments[1])

    def fsync(self, change: Change) -> None:
        node = self._at(change.path)
        assert isinstance(node, File)
        node.synced = node.held

    def sync(self, change: Change) -> None:
        node = self._at(change.path)
        assert isinstance(node, Folder)
        node.sync()

    def rename(self, change: Change) -> None:
        target = Path(change.arguments[1])
        assert target.parent == change.path.parent
        self._rename(target, {change.path.name: None, target.name: self._at(change.path)})

    def mkdir(self, change: Change) -> None:
        self._rename(change.path, {change.path.name: Folder()})

    def unlink(self, change: Change) -> None:
        self._rename(change.path, {change.path.name: None})

    rmdir = unlink


def replayed(root: Path, ignored: frozenset[str] = frozenset()) -> list[tuple[Folder, int]]:
    """The disk after each call of the saves, and the step of the last save that had returned."""
    disk, saved, found = Disk(root, ignored), 0, []

    def met(change: Change) -> None:
        disk(change)
        found.append((deepcopy(disk.top), saved))

    with pytest.MonkeyPatch.context() as patch:
        tap(met, patch.setattr)
        for step in STEPS:
            checkpoint.save(root / "checkpoints", made(step))
            saved = step
            found.append((deepcopy(disk.top), saved))
    return found


def verdict(root: Path, saved: int) -> str:
    """What is wrong with the checkpoints that are left; "" = nothing."""
    try:
        found, damaged = checkpoint.newest(root)
    except UserError as problem:
        return problem.code
    if found is None:
        return f"step {saved} is lost" if saved else ""
    if damaged or content(found) != content(made(found.position.step)):
        return f"damaged: {damaged}"
    return "" if found.position.step >= saved else f"step {found.position.step} instead of {saved}"


def verdicts(tmp_path: Path, ignored: frozenset[str] = frozenset()) -> list[str]:
    random, found = stream(1, "power"), []
    (tmp_path / "live").mkdir()
    for number, (top, saved) in enumerate(replayed(tmp_path / "live", ignored)):
        for state in range(STATES):
            place = tmp_path / f"{number}-{state}"
            top.lost(random, place)
            found.append(verdict(place / "checkpoints", saved))
    return found


def test_a_loss_of_power_loses_no_saved_step(tmp_path: Path) -> None:
    found = verdicts(tmp_path)
    assert len(found) > 1000
    assert [wrong for wrong in found if wrong] == []


@pytest.mark.parametrize("ignored", ["fsync", "sync"])
def test_saves_without_syncs_are_caught(ignored: str, tmp_path: Path) -> None:
    """The negative control: the replay knows what a sync is for."""
    found = verdicts(tmp_path, frozenset({ignored}))
    assert len([wrong for wrong in found if wrong]) > len(found) / 20
