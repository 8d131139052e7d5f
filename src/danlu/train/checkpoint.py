"""Checkpoints: one folder per step, whole or absent; the newest one that verifies is used, and said so."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from danlu import files
from danlu.errors import UserError

Named = dict[str, Tensor]


@dataclass
class Position:
    """Where a training is: all of its state that is not a tensor."""

    step: int = 0
    tokens: int = 0
    best: float | None = None  # lowest validation loss so far
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    skipped: int = 0  # steps without an update because the gradient was not finite
    skipped_in_a_row: int = 0
    seconds: float = 0.0


@dataclass
class Checkpoint:
    position: Position
    weights: Named  # fp32, the whole network
    optimizer: Named
    best: Named | None


def folder_of(root: Path, step: int) -> Path:
    return root / f"step-{step:07d}"


def save(root: Path, checkpoint: Checkpoint, *, keep: frozenset[int] = frozenset()) -> None:
    """Write the checkpoint of a step, then remove the older ones except those in `keep`."""
    step = checkpoint.position.step
    with files.staged(folder_of(root, step)) as out:
        files.write_tensors(out / "weights.safetensors", checkpoint.weights)
        files.write_tensors(out / "optimizer.safetensors", checkpoint.optimizer)
        if checkpoint.best is not None:
            files.write_tensors(out / "best.safetensors", checkpoint.best)
        files.write_json(out / "position.json", {"schema": files.SCHEMA, **asdict(checkpoint.position)})
    for folder in _folders(root):
        if (number := _step(folder)) < step and number not in keep:
            files.remove(folder)


def newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and the names of the damaged ones passed over.

    Raises:
        UserError: E307, there are checkpoints and none is whole.
    """
    damaged = []
    for folder in reversed(_folders(root)):
        if names := files.damage(folder):
            damaged.append(f"{folder.name} ({names[0]})")
        else:
            return _read(folder), damaged
    if damaged:
        raise UserError("E307", path=root, names=", ".join(damaged))
    return None, []


def prune(root: Path, keep: int) -> None:
    """Leave the checkpoint of step `keep` (or the newest, where that one is absent) and remove the others."""
    folders = _folders(root)
    kept = next((f for f in folders if _step(f) == keep), folders[-1] if folders else None)
    for folder in folders:
        if folder != kept:
            files.remove(folder)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("step-*") if p.suffix == "" and p.is_dir())


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _read(folder: Path) -> Checkpoint:
    table: dict[str, Any] = files.read_json(folder / "position.json")
    if table.pop("schema") != files.SCHEMA:
        raise UserError("E303", path=folder, found="?", known=files.SCHEMA)
    best = folder / "best.safetensors"
    return Checkpoint(
        Position(**table),
        files.read_tensors(folder / "weights.safetensors"),
        files.read_tensors(folder / "optimizer.safetensors"),
        files.read_tensors(best) if best.exists() else None,
    )
