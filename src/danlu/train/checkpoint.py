"""Checkpoints: one folder per step, whole or absent; the newest one that verifies is used, and said so."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from danlu import files
from danlu.errors import UserError
from danlu.train.slices import read_slices

Named = dict[str, Tensor]
_WEIGHTS, _OPTIMIZER, _BEST = "weights.safetensors", "optimizer.safetensors", "best.safetensors"
_POSITION = "position.json"


@dataclass
class Position:
    """Where a training is: all of its state that is not a tensor."""

    step: int = 0
    tokens: int = 0
    best: float | None = None  # validation loss of the best weights so far
    reached: float = 0.0  # their metric, where the task aims at one: it decides before the loss
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    looked: int = 0  # the last step whose evaluation is part of this state
    skipped: int = 0  # steps without an update: the gradient was not finite, or a spike
    skipped_in_a_row: int = 0
    window: dict[str, list[list[float]]] = field(default_factory=dict)  # of each part: [loss, norm] of good steps
    updates: dict[str, int] = field(default_factory=dict)  # of each part: steps that changed its weights
    anchor: int = 0  # the last step saved in good health, to which a roll-back returns; 0 is the start
    rollbacks: int = 0
    lr_scale: float = 1.0  # halved by every roll-back
    accumulate: int = 0  # micro-batches of a step since memory ran out; 0: as planned
    seconds: float = 0.0


@dataclass
class Checkpoint:
    position: Position
    weights: Named  # fp32, the whole network
    optimizer: Named
    best: Mapping[str, Tensor] | None  # of what is trained

    @property
    def bytes(self) -> int:
        """How large it is on disk."""
        parts = (self.weights, self.optimizer, self.best or {})
        return sum(tensor.nbytes for part in parts for tensor in part.values())


def folder_of(root: Path, step: int) -> Path:
    return root / f"step-{step:07d}"


def write_whole(out: Path, checkpoint: Checkpoint) -> None:
    """The tensors, each in one piece."""
    files.write_tensors(out / _WEIGHTS, checkpoint.weights)
    files.write_tensors(out / _OPTIMIZER, checkpoint.optimizer)
    if checkpoint.best is not None:
        files.write_tensors(out / _BEST, checkpoint.best)


def staging_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies while it is written."""
    return files.staging(folder_of(root, step))


def save(
    root: Path, checkpoint: Checkpoint, *, keep: frozenset[int] = frozenset(),
    write: Callable[[Path, Checkpoint], None] = write_whole,
) -> None:  # fmt: skip
    """Write the checkpoint of a step, then remove the older ones except those in `keep`."""
    step = checkpoint.position.step
    files.sweep(root)
    with files.staged(folder_of(root, step)) as out:
        write(out, checkpoint)
        files.write_json(out / _POSITION, {"schema": files.SCHEMA, **asdict(checkpoint.position)})
    for folder in _folders(root):
        if (number := _step(folder)) < step and number not in keep:
            files.remove(folder)


def newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and the names of the damaged ones passed over.

    Raises:
        UserError: E307, there are checkpoints and none is whole; E303, it was written by a newer danlu.
    """
    step, damaged = newest_step(root)
    return None if step is None else _read(folder_of(root, step)), damaged


def newest_step(root: Path) -> tuple[int | None, list[str]]:
    """The step of the newest checkpoint that verifies, and the names of the damaged ones passed over.

    Raises:
        UserError: E307, there are checkpoints and none is whole.
    """
    damaged: list[str] = []
    for folder in reversed(_folders(root)):
        name = next(iter(files.damage(folder)), "") or _lacking(folder)
        if not name:
            return _step(folder), damaged
        damaged.append(f"{folder.name} ({name})")
    if damaged:
        raise UserError("E307", path=root, names=", ".join(damaged))
    return None, []


def at(root: Path, step: int) -> Checkpoint | None:
    """The checkpoint of a step, or None where it is gone or damaged."""
    folder = folder_of(root, step)
    return None if files.damage(folder) else _read(folder)


def prune(root: Path, keep: int) -> None:
    """Leave the checkpoint of step `keep` (or the newest, where that one is absent) and remove all others."""
    files.sweep(root)
    folders = _folders(root)
    kept = next((f for f in folders if _step(f) == keep), folders[-1] if folders else None)
    for folder in folders:
        if folder != kept:
            files.remove(folder)


def _folders(root: Path) -> list[Path]:
    """The checkpoints, oldest first; never what is half written or half deleted, nor what others put beside them."""
    return sorted((p for p in root.glob("step-*") if re.fullmatch(r"step-\d{7,}", p.name) and p.is_dir()), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _of(part: str, named: Named) -> Named:
    """The tensors of "part/name", by name."""
    return {name.removeprefix(f"{part}/"): t for name, t in named.items() if name.startswith(f"{part}/")}


def _shards(folder: Path) -> list[str]:
    """The files of a checkpoint that several ranks have written, each its rows."""
    return [name for name in files.sealed(folder) if name.startswith("shard-")]


def _lacking(folder: Path) -> str:
    """The first file that a checkpoint of this step cannot be without, or is of another step; "" where all is there."""
    there = files.sealed(folder)
    for name in (_POSITION,) if _shards(folder) else (_WEIGHTS, _OPTIMIZER, _POSITION):
        if name not in there:
            return name
    return "" if files.read_json(folder / _POSITION)["step"] == _step(folder) else _POSITION


def _read(folder: Path) -> Checkpoint:
    table: dict[str, Any] = files.read_json(folder / _POSITION)
    if (schema := table.pop("schema")) != files.SCHEMA:
        raise UserError("E303", path=folder, found=schema, known=files.SCHEMA)
    if _shards(folder):
        named = read_slices([folder / name for name in _shards(folder)])
        weights, optimizer, best = (_of(part, named) for part in ("weights", "optimizer", "best"))
        return Checkpoint(Position(**table), weights, optimizer, best or None)
    return Checkpoint(
        Position(**table),
        files.read_tensors(folder / _WEIGHTS),
        files.read_tensors(folder / _OPTIMIZER),
        files.read_tensors(folder / _BEST) if _BEST in files.sealed(folder) else None,
    )
