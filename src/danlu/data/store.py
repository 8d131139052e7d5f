"""Rows on disk: parquet shards of a bounded size, written and read back in order, never held whole."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

SHARD = 2**30  # bytes of text in a shard, at most
_BUFFER = 8 * 2**20
pa.set_memory_pool(pa.system_memory_pool())  # arrow's own gives nothing back to the training that follows


class RowWriter:
    """Writes rows of string columns to `<name>-00000.parquet`, `<name>-00001.parquet`, ... in `folder`."""

    def __init__(self, folder: Path, name: str, columns: Sequence[str], *, shard: int = SHARD):
        self.folder, self.name, self.shard = folder, name, shard
        self.schema = pa.schema([(column, pa.large_string()) for column in columns])
        self.rows = 0
        self._buffer: list[dict[str, Any]] = []
        self._buffered = self._written = self._shards = 0
        self._file: pq.ParquetWriter | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row; columns that it lacks are null, others are left out."""
        size = sum(len(row.get(name) or "") for name in self.schema.names)
        if self._written and self._written + self._buffered + size > self.shard:
            self._next_shard()
        self._buffer.append({name: row.get(name) for name in self.schema.names})
        self._buffered += size
        self.rows += 1
        if self._buffered >= min(_BUFFER, self.shard):
            self._flush()

    def close(self) -> None:
        """Finish; a writer without rows leaves one empty shard."""
        self._next_shard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self) -> None:
        if self._file is None:
            path = self.folder / f"{self.name}-{self._shards:05d}.parquet"
            self._file = pq.ParquetWriter(path, self.schema, compression="zstd")
        if self._buffer:
            self._file.write_table(pa.Table.from_pylist(self._buffer, self.schema))
        self._written += self._buffered
        self._buffer, self._buffered = [], 0

    def _next_shard(self) -> None:
        self._flush()
        assert self._file is not None
        self._file.close()
        self._file, self._written, self._shards = None, 0, self._shards + 1


def shards(folder: Path, name: str) -> list[Path]:
    """The shards that a RowWriter called `name` left in `folder`, in order."""
    return sorted(folder.glob(f"{name}-[0-9]*.parquet"))


def read(folder: Path, name: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of all shards, in order, a batch at a time."""
    for path in shards(folder, name):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=list(columns) if columns else None):
                yield from batch.to_pylist()
