"""What was done: list, show, compare, explain and clear away runs."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from danlu import files, hub
from danlu.artifact import Lineage, differences
from danlu.errors import UserError
from danlu.graph import STORE, Run, runs
from danlu.messages import text
from danlu.quantity import seconds
from danlu.recipe import load_recipe

CONFIG = "config.json"  # what makes a folder a model folder
ADAPTERS = "adapter_config.json"  # or one of what was added to a model
RECORD, RECIPE = "run.json", "recipe.toml"


def find(root: Path, name: str) -> Run:
    """A run by name ("shakespeare-2"), or the latest of a recipe ("shakespeare").

    Raises:
        UserError: E113, there is no such run.
    """
    known = runs(root)
    for run in reversed(known):
        if name in (run.name, run.recipe):
            return run
    raise UserError("E113", name=name, root=root, known=", ".join(run.name for run in known) or "-")


def recipe_file(path: str | Path) -> Path | None:
    """The recipe that a path means: a .toml file, or the recipe.toml of a folder that is neither a model nor a run."""
    path = Path(path)
    if path.is_file():
        return path if path.suffix == ".toml" else None
    own = (path / CONFIG).is_file() or (path / RECORD).is_file()
    return path / RECIPE if not own and (path / RECIPE).is_file() else None


def model_folder(path: str | Path) -> Path:
    """The model folder behind a model folder, a run folder, a recipe that has run, a name in ./runs, or one on a hub.

    Raises:
        UserError: E304, there is no model; E342-E347, a hub does not give it.
    """
    if hub.named(path):
        return hub.local(path)
    folder = Path(path)
    if (folder / CONFIG).is_file() or (folder / ADAPTERS).is_file():
        return folder
    if recipe := recipe_file(folder):
        loaded = load_recipe(recipe)
        root, name = loaded.runs, loaded.name
    elif (folder / RECORD).is_file():
        root, name = folder.resolve().parent, folder.resolve().name
    else:
        root, name = Path("runs"), str(path)
    for run in reversed(runs(root)):
        if name in (run.name, run.recipe) and run.model and (run.model / CONFIG).is_file():
            return run.model
    if any(folder.glob("*.safetensors")):
        raise UserError("E301", path=folder / CONFIG, reason=text("reasons.os.ENOENT"))
    raise UserError("E304", path=path)


def summary(run: Run) -> dict[str, Any]:
    """One line of `danlu runs`."""
    lineages = [Lineage.read(folder) for folder in run.folders.values() if folder.exists()]
    return {"run": run.name, "at": run.at, "stages": len(run.folders),
            "seconds": round(sum(l.made.get("seconds", 0) for l in lineages), 1), **metrics(run)}  # fmt: skip


def metrics(run: Run) -> dict[str, float]:
    """The figures of a run's evaluation, flat."""
    folder = run.folders.get("evaluate")
    path = folder / "metrics.json" if folder else None
    if not path or not path.exists():
        return {}
    table = files.read_json(path)
    return {f"{model}.{name}": value for model, figures in table["models"].items() for name, value in figures.items()}


def show(run: Run) -> dict[str, Any]:
    """Everything recorded of a run: per stage its folder, key, time and facts; its metrics."""
    stages = {}
    for name, folder in run.folders.items():
        lineage = Lineage.read(folder)
        stages[name] = {
            "folder": f"{STORE}/{folder.name}",
            "output": lineage.output_hash[:12],
            **lineage.made,
            **lineage.facts,
        }
    return {"run": run.name, "at": run.at, "stages": stages, "metrics": metrics(run)}


def why(run: Run) -> dict[str, list[str]]:
    """For each stage why it ran in this run; an empty list means it was unchanged."""
    return {name: run.why.get(name, []) for name in run.folders}


def compare(a: Run, b: Run) -> tuple[list[str], dict[str, tuple[Any, Any]]]:
    """(the configuration keys that differ, {metric: (a, b)})."""
    changed = [
        f"{name}: {difference}"
        for name in dict.fromkeys([*a.folders, *b.folders])
        for difference in _stage_differences(a.folders.get(name), b.folders.get(name))
    ]
    left, right = metrics(a), metrics(b)
    return changed, {name: (left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])}


def _stage_differences(a: Path | None, b: Path | None) -> Iterator[str]:
    if a == b:
        return
    if a is None or b is None:
        yield f"{a.name if a else '—'} → {b.name if b else '—'}"
        return
    old, new = Lineage.read(a), Lineage.read(b)
    yield from differences(old.config, new.config)
    if old.files != new.files:
        yield text("runs.files", old=len(old.files), new=len(new.files))


def doomed(
    root: Path, *, keep: int | None = None, older: str = "30d", larger_mb: float = 0.0
) -> tuple[list[Path], dict[Path, int]]:
    """What `runs gc` deletes: the records to forget, and {folder: bytes} that no remaining record needs.

    Raises:
        UserError: E106, `keep` or `older` cannot be.
    """
    if keep is not None and keep < 0:
        raise UserError("E106", key="--keep", reason=text("recipe.expected.greater_than_equal", ge=0))
    records = [] if keep is None else forget(root, keep)
    return records, dict(garbage(root, older=older, larger_mb=larger_mb, without=records))


def garbage(
    root: Path, *, older: str = "30d", larger_mb: float = 0.0, without: Sequence[Path] = ()
) -> list[tuple[Path, int]]:
    """Folders that no record but those `without` needs, old and large enough, with sizes; unfinished ones too.

    A folder that some process holds the lock of is left alone.
    """
    kept = {folder for run in runs(root) if run.folder not in without for folder in run.folders.values()}
    limit = time.time() - _age(older)
    found = []
    for folder in sorted((root / STORE).glob("*")):
        if not folder.is_dir() or folder in kept or folder.stat().st_mtime > limit:
            continue
        size = _size(folder)
        if size >= larger_mb * 1e6 and not files.is_locked(root / STORE / f"{folder.name.split('.')[0]}.lock"):
            found.append((folder, size))
    return found


def _age(older: str) -> float:
    try:
        return seconds(older)
    except ValueError as error:
        raise UserError("E106", key="--older", reason=str(error)) from error


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def forget(root: Path, keep: int) -> list[Path]:
    """The records of all but the newest `keep` runs of each recipe."""
    records = runs(root)
    gone: list[Path] = []
    for recipe in dict.fromkeys(run.recipe for run in records):
        own = [run.folder for run in records if run.recipe == recipe]
        gone += own[: max(0, len(own) - keep)]
    return gone


def clear(folders: Sequence[Path]) -> int:
    """Delete folders; returns the bytes freed."""
    freed = 0
    for folder in folders:
        freed += _size(folder)
        files.remove(folder)
    return freed
