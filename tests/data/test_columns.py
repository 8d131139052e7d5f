"""Ragged columns: what was added comes back, over many shards, in bounded memory, or fails by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.data import columns
from danlu.data.columns import Columns, ColumnWriter, token_dtype
from danlu.errors import UserError

ROWS = st.lists(st.lists(st.integers(0, 65_535), max_size=9), max_size=9)


def _write(folder: Path, rows: list[list[int]], shard_bytes: int = 1 << 30) -> Columns:
    dtypes = {"input_ids": "uint16", "loss_mask": "uint8", "bytes": "int64"}
    writer = ColumnWriter(folder, dtypes, scalars=["bytes"], shard_bytes=shard_bytes)
    for row in rows:
        writer.add({"input_ids": row, "loss_mask": np.array(row, np.int64) % 2, "bytes": len(row)})
    writer.close()
    return Columns(folder)


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, shard_bytes=st.sampled_from([16, 40, 1 << 30]))
def test_rows_come_back_whatever_the_shards(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], shard_bytes: int
) -> None:
    found = _write(tmp_path_factory.mktemp("columns"), rows, shard_bytes)
    assert len(found) == len(rows)
    assert [found.row(index)["input_ids"].tolist() for index in range(len(rows))] == rows
    assert [found.row(index)["loss_mask"].tolist() for index in range(len(rows))] == [
        [x % 2 for x in row] for row in rows
    ]
    assert found.scalar("bytes")[:].tolist() == [len(row) for row in rows]
    assert found.offsets("input_ids")[:].tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    assert found.flat("input_ids")[:].tolist() == [value for row in rows for value in row]


@settings(deadline=None, max_examples=60)
@given(start=st.integers(-60, 60), stop=st.integers(-60, 60))
def test_several_shards_are_sliced_like_one(tmp_path_factory: pytest.TempPathFactory, start: int, stop: int) -> None:
    values = list(range(50))
    flat = _write(tmp_path_factory.mktemp("columns"), [values], shard_bytes=16).flat("input_ids")
    assert len(flat) == 50
    assert flat[start:stop].tolist() == values[start:stop]


def test_more_rows_than_are_written_at_once(tmp_path: Path) -> None:
    rows = [[index % 7] * (index % 3) for index in range(2 * columns._TOGETHER + 5)]
    found = _write(tmp_path, rows, shard_bytes=2**15)
    assert found.offsets("input_ids")[:].tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    assert found.row(len(rows) - 1)["input_ids"].tolist() == rows[-1]


def test_one_shard_is_a_memory_map(tmp_path: Path) -> None:
    flat = _write(tmp_path, [[1, 2], [3]]).flat("input_ids")
    assert isinstance(flat, np.memmap)
    assert (flat.dtype, flat.ndim) == (np.dtype("<u2"), 1)


def test_shards_keep_their_limit(tmp_path: Path) -> None:
    _write(tmp_path, [list(range(50))] * 3, shard_bytes=40)
    assert max(path.stat().st_size for path in tmp_path.glob("*.bin")) <= 40


@pytest.mark.parametrize("value", [65_536, -1, 1.5])
def test_a_value_that_does_not_fit_is_refused(tmp_path: Path, value: float) -> None:
    writer = ColumnWriter(tmp_path, {"input_ids": "uint16"})
    with pytest.raises(ValueError, match="input_ids"):
        writer.add({"input_ids": [1, value]})
    writer.close()


def test_a_missing_column_is_refused(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, {"input_ids": "uint16", "bytes": "int64"}, scalars=["bytes"])
    with pytest.raises(ValueError, match="bytes"):
        writer.add({"input_ids": [1]})
    writer.close()


def test_ids_take_as_little_room_as_the_vocabulary_allows() -> None:
    assert (token_dtype(65_536), token_dtype(65_537)) == ("uint16", "uint32")


def test_unfinished_damaged_and_newer_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="E301"):
        Columns(tmp_path)
    _write(tmp_path, [[1, 2, 3]])
    path = tmp_path / "input_ids.00000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="E301"):
        Columns(tmp_path).flat("input_ids")
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"schema": 99}))
    with pytest.raises(UserError, match="E303"):
        Columns(tmp_path)
