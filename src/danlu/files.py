"""The one module that opens, syncs, hashes, renames and deletes in places that must never be half written.

A final folder appears whole or not at all: everything is written into `<folder>.tmp`, every file is synced,
`manifest.json` (sha256 and size of each file) is written last, and one rename puts it in place. The primitive calls
stand together at the top so that a fault harness can see and fail every one of them.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from danlu import disk
from danlu.errors import UserError
from danlu.messages.reasons import because

if TYPE_CHECKING:
    import torch

SCHEMA = 1
MANIFEST = "manifest.json"
_DOOMED = ".del"
_WINDOWS = sys.platform == "win32"


# --- primitives: every change of the disk passes through these ---------------------------------------


def _open(path: Path, mode: str) -> IO[bytes]:
    return open(path, mode)


def _write(file: IO[bytes], data: bytes | memoryview) -> None:
    file.write(data)


def _fsync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def _unlink(path: Path) -> None:
    path.unlink()


def _sync_folder(folder: Path) -> None:
    if _WINDOWS:  # directories cannot be opened there; the rename itself is durable on NTFS
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into one clear line."""
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: Path, error: OSError) -> UserError:
    """What the operating system refused, for the user: E401 where the disk is full, else E402."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError("E401", path=path, free=disk.legible(disk.free(path)))
    return UserError("E402", path=path, reason=because(error))


def _make(folder: Path) -> None:
    """Create a folder and those it lies in, and sync their names: after a loss of power what is inside can be found."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


# --- single files -----------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: readers see the old content or the new, never a part."""
    with _disk(path):
        _make(path.parent)
        with _replacing(path) as file:
            _write(file, data)
        _sync_folder(path.parent)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of `path` when it is written and synced; on failure it is gone."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with _open(temporary, "wb") as file:
            yield file
            _fsync(file)
        _rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON that every parser reads: UTF-8, no NaN."""
    write_bytes(path, _json(value))


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode("utf-8")


def append_line(path: Path, line: str) -> None:
    """Add one whole line to a log, or nothing; one that cannot be written never stops a run (the caller decides)."""
    with _disk(path), _open(path, "ab") as file:
        size = file.tell()
        try:
            _write(file, line.encode("utf-8") + b"\n")
        except OSError:  # half a line would spoil the next one
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adopt(part: Path, path: Path) -> None:
    """Put a finished file of another writer in its final place: synced, then renamed."""
    with _disk(path):
        with _open(part, "rb+") as file:
            _fsync(file)
        _rename(part, path)
        _sync_folder(path.parent)


# --- folders ----------------------------------------------------------------------------------------


def staging(folder: Path) -> Path:
    """Where a folder lies until it is whole."""
    return folder.with_name(folder.name + ".tmp")


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it is sealed and becomes `folder`, on failure it is removed."""
    temporary = staging(folder)
    remove(temporary)
    with _disk(folder):
        _make(folder.parent)
        temporary.mkdir()
        try:
            yield temporary
            seal(temporary)
            publish(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def seal(folder: Path) -> None:
    """Sync every file of a folder, then write its manifest, last."""
    with _disk(folder):
        entries = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
            with _open(path, "rb+") as file:
                _fsync(file)
            entries[path.relative_to(folder).as_posix()] = {"sha256": sha256(path), "bytes": path.stat().st_size}
        for inner in filter(Path.is_dir, folder.rglob("*")):
            _sync_folder(inner)
        write_json(folder / MANIFEST, {"schema": SCHEMA, "files": entries})


def publish(temporary: Path, folder: Path) -> None:
    """Put a sealed folder in its final place by one rename; what was there goes, or comes back if that fails."""
    with _disk(folder):
        before = _aside(folder)
        try:
            _rename(temporary, folder)
        except BaseException:
            if before:
                _rename(before, folder)
            raise
        _sync_folder(folder.parent)
        if before:
            _delete(before)


def remove(path: Path) -> None:
    """Delete a file or folder so that a half-deleted one is never mistaken for a whole one."""
    with _disk(path):
        if doomed := _aside(path):
            _delete(doomed)


def sweep(folder: Path) -> None:
    """Delete what killed processes left half written or half deleted in a folder that only the caller writes."""
    with _disk(folder):
        for path in [each for each in folder.glob("*") if each.suffix in (".tmp", _DOOMED)]:
            _delete(path)


def _aside(path: Path) -> Path | None:
    """Rename what is at `path`, so that nothing is there; its new name, or None where nothing was."""
    if not (path.exists() or path.is_symlink()):
        return None
    doomed = path.with_name(f"{path.name}.{os.getpid()}{_DOOMED}")
    if doomed.exists():  # a deletion that failed earlier
        _delete(doomed)
    _rename(path, doomed)
    return doomed


def _delete(doomed: Path) -> None:
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        _unlink(doomed)


def damage(folder: Path, *, deep: bool = True) -> list[str]:
    """Names of files that are missing or differ from the manifest; `deep` compares sha256, else only sizes.

    A manifest that is absent, or differs in one byte from how `seal` wrote it, is damage itself: ["manifest.json"].
    """
    try:
        return [name for name, entry in sealed(folder).items() if not _intact(folder / name, entry, deep)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [MANIFEST]


def sealed(folder: Path) -> Mapping[str, Any]:
    """{name: {"sha256", "bytes"}} of a folder's manifest; ValueError where it is not as `seal` wrote it."""
    content = (folder / MANIFEST).read_bytes()
    table = json.loads(content)
    if _json(table) != content or set(table) != {"schema", "files"} or table["schema"] != SCHEMA:
        raise ValueError(MANIFEST)
    return table["files"]


def _intact(path: Path, entry: Mapping[str, Any], deep: bool) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    return not deep or sha256(path) == entry["sha256"]


# --- locks ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that the system releases when the process ends, however it ends.

    Raises:
        UserError: E110, another process holds it (its pid and start are named).
    """
    file = _lock(path)
    try:
        with _disk(path):
            file.truncate(0)
            held = f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode()
            os.write(file.fileno(), held)  # not through the buffer: on a full disk it would fail again when closed
        yield
    finally:
        file.close()


def is_locked(path: Path) -> bool:
    """Whether a live process holds this lock now."""
    try:
        file = _open(path, "r+b")
    except FileNotFoundError:
        return False
    with file:
        return not _try_lock(file)


def _lock(path: Path) -> IO[bytes]:
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path, "a+b")
    if not _try_lock(file):
        file.seek(0)
        holder = file.read().decode("utf-8", "replace").strip() or "?"
        file.close()
        raise UserError("E110", path=path.with_suffix("").name, holder=holder)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()  # its holder deleted it between our open and our lock: others would lock another file of that name
    return _lock(path)


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if _WINDOWS:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# --- tensors ----------------------------------------------------------------------------------------

_DTYPES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16",
    "torch.int64": "I64", "torch.int32": "I32", "torch.int16": "I16", "torch.int8": "I8",
    "torch.uint8": "U8", "torch.bool": "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: "Mapping[str, torch.Tensor]", metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file (8-byte header length, JSON header, raw little-endian data) atomically.

    Our own writer, so that every write and sync is one that the fault harness can see.
    """
    with _disk(path), _replacing(path) as file:
        _write(file, _tensor_header(tensors, metadata or {"format": "pt"}))
        for name in sorted(tensors):  # one after the other: of a file, no more than one is in memory
            _write(file, tensor_bytes(tensors[name]))


def _tensor_header(tensors: "Mapping[str, torch.Tensor]", metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in ((name, tensors[name]) for name in sorted(tensors)):
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    return (len(text) + -len(text) % 8).to_bytes(8, "little") + text + b" " * (-len(text) % 8)


def tensor_bytes(tensor: "torch.Tensor") -> memoryview:
    """The raw bytes of a tensor, without a copy where it lies contiguous on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().view(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(b"")


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """Read a safetensors file.

    Raises:
        UserError: E301, the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError("E301", path=path, reason=because(error)) from error


def tensors_hash(tensors: "Mapping[str, torch.Tensor]") -> str:
    """Canonical content hash: names, dtypes, shapes and bytes in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
