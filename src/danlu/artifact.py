"""Run folders: input-addressed, built in `<folder>.partial`, sealed, and never changed again."""

import contextlib
import errno
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from danlu import __version__, files
from danlu.errors import UserError
from danlu.messages import text

SCHEMA = files.SCHEMA
LINEAGE = "lineage.json"
PARTIAL = ".partial"  # of a folder that is being made
_LIBRARIES = ("torch", "daft", "tokenizers", "tiktoken", "numpy", "safetensors")


@dataclass
class Lineage:
    """Where a folder comes from: its stage, what the stage read, and what came out."""

    node: str
    stage: str
    version: int
    key: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)  # role -> {"folder", "output_hash"}
    files: dict[str, str] = field(default_factory=dict)  # raw file (relative) -> sha256
    output_hash: str = ""
    made: dict[str, Any] = field(default_factory=dict)  # when, how long, with which libraries: never in the key
    facts: dict[str, Any] = field(default_factory=dict)  # what the stage found: rows, losses, sizes

    def write(self, folder: Path) -> None:
        files.write_json(folder / LINEAGE, {"schema": SCHEMA, **self.__dict__})

    @classmethod
    def read(cls, folder: Path) -> "Lineage":
        """Raises UserError E302 where the folder has no readable lineage, E303 where its schema is newer."""
        try:
            table = files.read_json(folder / LINEAGE)
            schema = table.pop("schema")
            if schema == SCHEMA:
                return cls(**table)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError("E302", path=folder, names=LINEAGE) from error
        raise UserError("E303", path=folder, found=schema, known=SCHEMA)

    def changes(self, config: Any, raw: Mapping[str, str]) -> Iterator[str]:
        """Each key, and how many raw files, that are not as they were."""
        yield from differences(self.config, config)
        yield from _file_changes(self.files, raw)


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """Each key that differs, as "train.lr 0.0003 -> 0.0001"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield f"{prefix} {_shown(old)} → {_shown(new)}"


def _shown(value: Any) -> str:
    return "—" if value is None else json.dumps(value, ensure_ascii=False)


def _file_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    added, gone = len({*new} - {*old}), len({*old} - {*new})
    changed = sum(old[name] != new[name] for name in {*old} & {*new})
    if added or gone or changed:
        yield text("graph.files", added=added, gone=gone, changed=changed)


def made(started: float) -> dict[str, Any]:
    """The record of a building: time and libraries."""
    versions = {name: _version(name) for name in _LIBRARIES}
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))
    return {"at": when, "seconds": round(time.time() - started, 3), "danlu": __version__,
            "python": platform.python_version(), "machine": platform.machine(), **versions}  # fmt: skip


_DECIDE = ("torch", "numpy", "danlu", "machine")  # what bits can depend on, of all that is recorded


def goes_on(folder: Path, now: Mapping[str, Any], allowed: Callable[[str], object] | None) -> None:
    """What was begun with another torch or on another machine ends in other bits: never without a word.

    `allowed` takes that word, as "torch 2.12.0 → 2.13.0"; where it is None the folder is not gone on with.

    Raises:
        UserError: E312, it is not allowed.
    """
    begun = Lineage.read(folder).made if (folder / LINEAGE).is_file() else now
    changes = "; ".join(f"{name} {begun.get(name)} → {now[name]}" for name in _DECIDE if begun.get(name) != now[name])
    if changes and allowed is None:
        raise UserError("E312", path=folder, changes=changes)
    if changes and allowed:
        allowed(text("graph.changed", changes=changes))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


@contextlib.contextmanager
def building(folder: Path, *, resumable: bool) -> Iterator[Path | None]:
    """Lock `folder`, yield its `.partial` twin, and on success seal and publish it; None where it is whole by now.

    What was begun stays in the `.partial` folder when the process is killed; a stage that cannot go on from there
    (`resumable` false) starts with an empty one.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    lock = folder.with_name(folder.name + ".lock")
    with files.locked(lock):
        if folder.exists() and not files.damage(folder):
            yield None
            return
        if not resumable:
            files.remove(partial)
        with _tidied(partial, resumable):
            partial.mkdir(parents=True, exist_ok=True)
            yield partial
        files.seal(partial)
        files.publish(partial, folder)
        with contextlib.suppress(OSError):
            lock.unlink()


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)  # of all that can fail, only a disk fails like this


@contextlib.contextmanager
def _tidied(partial: Path, resumable: bool) -> Iterator[None]:
    """Where a stage fails, nothing stays that its next run would not use; what the disk refused others is told."""
    try:
        yield
    except BaseException as error:
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise files.refusal(partial, error) from error
        raise


def intact(folder: Path, *, deep: bool = False) -> None:
    """Raise UserError E302, naming the damaged files, unless the folder is as it was sealed."""
    if names := files.damage(folder, deep=deep):
        raise UserError("E302", path=folder, names=", ".join(names[:5]))


# --- raw files ---------------------------------------------------------------------------------------


class HashIndex:
    """sha256 of raw files, remembered by (path, size, mtime_ns, inode) so that unchanged files are not read again."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            self.known = json.loads(path.read_bytes())["files"]
        self.changed = False

    def sha256(self, path: Path) -> str:
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = self.known.get(str(path))
        if entry is None or entry[:3] != mark:
            entry = self.known[str(path)] = [*mark, files.sha256(path)]
            self.changed = True
        return str(entry[3])

    def save(self) -> None:
        if self.changed:
            files.write_json(self.path, {"schema": SCHEMA, "files": self.known})


def raw_hashes(paths: Sequence[Path], base: Path, index: HashIndex) -> dict[str, str]:
    """{relative path: sha256} of raw files, in path order."""
    return {Path(os.path.relpath(path, base)).as_posix(): index.sha256(path) for path in sorted(paths)}
