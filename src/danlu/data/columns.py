"""Ragged columns on disk, memory-mapped: many examples of different lengths, read without copying.

A folder holds meta.json and raw little-endian numbers. A ragged column is its values end to end, cut into
shards of at most 1 GiB (`input_ids.00000.bin`), and `input_ids.offsets.bin`: example i is
`flat[offsets[i]:offsets[i + 1]]`. A scalar column is one number per example; a whole column one array, of a shape that
all share (the pixels of a picture).
"""

import json
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from danlu.errors import UserError
from danlu.messages.reasons import because

SCHEMA = 1
SHARD_BYTES = 1 << 30
_META = "meta.json"
_TOGETHER = 4096  # single numbers that are written at once


def token_dtype(vocab_size: int) -> str:
    """The smallest of uint16 and uint32 that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class _Shards:
    """A growing sequence of numbers, written to files of equal length."""

    def __init__(self, folder: Path, name: str, dtype: DTypeLike, per_shard: int):
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.length = 0
        self._folder, self._name, self._per_shard = folder, name, per_shard
        self._file: IO[bytes] | None = None
        self._waiting: list[int] = []

    def append(self, value: int) -> None:
        """Append one number; it is written with those that follow."""
        self._waiting.append(value)
        if len(self._waiting) == _TOGETHER:
            self._write_waiting()

    def _write_waiting(self) -> None:
        values, self._waiting = self._waiting, []
        self.extend(values)

    def extend(self, values: ArrayLike) -> int:
        """Append numbers; how many there were."""
        array = self._exact(values)
        for start, stop in self._cuts(len(array)):
            self._current().write(array[start:stop].tobytes())
            self.length += stop - start
        return len(array)

    def _exact(self, values: ArrayLike) -> np.ndarray:
        given = np.asarray(values)
        array = given.astype(self.dtype)
        same = array == given
        if given.size and not (same if given.dtype.kind != "f" else same | np.isnan(given)).all():
            raise ValueError(f"column {self._name}: a value does not fit in {self.dtype.name}")
        return array

    def _cuts(self, size: int) -> list[tuple[int, int]]:
        room = -self.length % self._per_shard
        edges = [0, *range(room or self._per_shard, size, self._per_shard), size]
        return [(start, stop) for start, stop in pairwise(edges) if stop > start]

    def _current(self) -> IO[bytes]:
        if self._file is None or self.length % self._per_shard == 0:
            self.close()
            path = _shard(self._folder, self._name, self.length // self._per_shard)
            self._file = path.open("wb")  # closed when the next shard begins, and by close()
        return self._file

    def finish(self) -> None:
        """Write what waits, and close."""
        self._write_waiting()
        self.close()

    def close(self) -> None:
        if self._file:
            self._file.close()


class ColumnWriter:
    """Writes examples one by one, in memory that does not grow with them.

    `dtypes` names the columns; those in `scalars` hold one number per example, those in `shapes` an array of that
    shape, the others a sequence.
    """

    def __init__(
        self,
        folder: Path,
        dtypes: Mapping[str, DTypeLike],
        *,
        scalars: Collection[str] = (),
        shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
        shard_bytes: int = SHARD_BYTES,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._scalars, self._shard_bytes = folder, frozenset(scalars), shard_bytes
        self._shapes = dict(shapes)
        self._values = {name: self._shards(name, dtype) for name, dtype in dtypes.items()}
        self._offsets = {
            name: self._shards(f"{name}.offsets", np.int64)
            for name in dtypes
            if name not in self._scalars and name not in self._shapes
        }
        for offsets in self._offsets.values():
            offsets.append(0)
        self._rows = 0

    def _shards(self, name: str, dtype: DTypeLike) -> _Shards:
        return _Shards(self._folder, name, dtype, self._shard_bytes // np.dtype(dtype).itemsize)

    def add(self, example: Mapping[str, Any]) -> None:
        """Append one example, which must have every column.

        Raises:
            ValueError: a column is missing or unknown, or a value does not fit its dtype.
        """
        if example.keys() != self._values.keys():
            raise ValueError(f"an example has the columns {sorted(example)}, this folder {sorted(self._values)}")
        for name, shards in self._values.items():
            shards.extend([example[name]] if name in self._scalars else self._sequence(name, example[name]))
            if name in self._offsets:
                self._offsets[name].append(shards.length)
        self._rows += 1

    def _sequence(self, name: str, value: Any) -> Any:
        """The numbers of a value, end to end."""
        if name not in self._shapes:
            return value
        if np.shape(value) != self._shapes[name]:
            raise ValueError(f"column {name}: {np.shape(value)} is not {self._shapes[name]}")
        return np.asarray(value).reshape(-1)

    def close(self) -> None:
        """Finish the files and write meta.json last: a folder without it was never finished."""
        for shards in (*self._values.values(), *self._offsets.values()):
            shards.finish()
        columns = {
            name: {"dtype": shards.dtype.name, "length": shards.length, "scalar": name in self._scalars}
            | ({"shape": list(self._shapes[name])} if name in self._shapes else {})
            for name, shards in self._values.items()
        }
        meta = {"schema": SCHEMA, "rows": self._rows, "shard_bytes": self._shard_bytes, "columns": columns}
        (self._folder / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


class Sharded:
    """Several arrays of equal length (the last may be shorter) that are sliced like one."""

    def __init__(self, parts: list[np.ndarray]):
        self._parts, self._each = parts, len(parts[0])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self._each * (len(self._parts) - 1) + len(self._parts[-1])

    def __getitem__(self, where: slice) -> np.ndarray:
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise ValueError("a sharded column is read in whole slices")
        if stop <= start:
            return np.empty(0, self.dtype)
        first, last = start // self._each, (stop - 1) // self._each
        base = first * self._each
        near = self._parts[first : last + 1]
        return (near[0] if len(near) == 1 else np.concatenate(near))[start - base : stop - base]


class Columns:
    """The columns of a folder, mapped into memory and read as needed."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._meta = _read_meta(folder)
        self._columns: dict[str, dict[str, Any]] = self._meta["columns"]
        self._whole: dict[str, np.ndarray | Sharded] = {}  # columns that are mapped already

    def __len__(self) -> int:
        return int(self._meta["rows"])

    @property
    def names(self) -> list[str]:
        """The columns, in the order they were declared."""
        return list(self._columns)

    def flat(self, name: str) -> np.ndarray | Sharded:
        """All values of a ragged column end to end: one memory map, or several sliced like one."""
        return self._mapped(name, self._columns[name]["dtype"], self._columns[name]["length"])

    @property
    def longest(self) -> int:
        """Values of the longest example, 0 where there is none."""
        offsets = self.offsets("input_ids")[:]
        return int(np.diff(offsets).max()) if len(offsets) > 1 else 0

    def offsets(self, name: str) -> np.ndarray | Sharded:
        """Where each example of a ragged column begins, and the end: int64 (n + 1,)."""
        return self._mapped(f"{name}.offsets", "int64", len(self) + 1)

    def scalar(self, name: str) -> np.ndarray | Sharded:
        """One number per example (n,)."""
        if not self._columns[name]["scalar"]:
            raise ValueError(f"{name} is a ragged column")
        return self.flat(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """That of the arrays of a whole column; None of another column."""
        found = self._columns[name].get("shape")
        return tuple(found) if found else None

    def arrays(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The arrays that a whole column holds of some examples, (len(rows), *shape)."""
        shape = self.shape(name) or ()
        size, flat = int(np.prod(shape)), self._whole.setdefault(name, self.flat(name))
        if isinstance(flat, Sharded):
            found = [flat[row * size : (row + 1) * size] for row in rows]
            return np.stack(found).reshape(-1, *shape) if found else np.empty((0, *shape), flat.dtype)
        return flat.reshape(-1, *shape)[rows]

    def row(self, index: int) -> dict[str, Any]:
        """One example, as it was written."""
        return {name: self._value(name, index) for name in self.names}

    def _value(self, name: str, index: int) -> Any:
        if self._columns[name]["scalar"]:
            return self.scalar(name)[index : index + 1][0]
        if self.shape(name):
            return self.arrays(name, np.array([index]))[0]
        start, stop = self.offsets(name)[index : index + 2]
        return self.flat(name)[start:stop]

    def _mapped(self, name: str, dtype: str, length: int) -> np.ndarray | Sharded:
        kind = np.dtype(dtype).newbyteorder("<")
        if not length:
            return np.empty(0, kind)
        each = self._meta["shard_bytes"] // kind.itemsize
        sizes = [min(each, length - start) for start in range(0, length, each)]
        parts = [_map(_shard(self._folder, name, index), kind, size) for index, size in enumerate(sizes)]
        return parts[0] if len(parts) == 1 else Sharded(parts)


def _shard(folder: Path, name: str, index: int) -> Path:
    return folder / f"{name}.{index:05d}.bin"


def _map(path: Path, dtype: np.dtype, size: int) -> np.ndarray:
    try:
        return np.memmap(path, dtype, "r", shape=(size,))
    except (OSError, ValueError) as problem:
        raise UserError("E301", path=path, reason=because(problem)) from problem


def _read_meta(folder: Path) -> dict[str, Any]:
    """The description of a folder of columns.

    Raises:
        UserError: E301 when it was never finished or is damaged, E303 when a newer danlu wrote it.
    """
    path = folder / _META
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UserError("E301", path=path, reason=because(problem)) from problem
    if meta["schema"] > SCHEMA:
        raise UserError("E303", path=path, found=meta["schema"], known=SCHEMA)
    return meta
