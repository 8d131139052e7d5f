"""Rows as people hold them in Python, as a file that the data stage reads: then they meet the same checks as any file.

Taken are a path, or several; rows as dicts, or as texts; a DataFrame (pandas, polars); a Hugging Face dataset; (x, y)
of texts and labels; a torch Dataset of rows; a DataLoader of batches. The line of a row in an error is its place,
counted from 1.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from danlu import files
from danlu.errors import UserError

TEXT, PAIR, LABEL = "text", "text_pair", "label"
IDS, LABELS = "input_ids", ("labels", "label")  # of rows that are numbers already
_PATH = (str, Path)


def paths(data: Any) -> list[str] | None:
    """The paths that data are; None where they are something else."""
    given = [data] if isinstance(data, _PATH) else data
    listed = isinstance(given, list | tuple) and given and all(isinstance(each, Path) for each in given)
    return [str(Path.cwd() / each) for each in given] if isinstance(data, _PATH) or listed else None


def held(data: Any) -> Any:
    """Data that can be looked at more than once: what a generator gives is kept."""
    return list(data) if hasattr(data, "__next__") else data


def written(data: Any, folder: Path, name: str) -> list[str]:
    """The paths of data, written to `folder` as `name`.jsonl where they are no files yet.

    Raises:
        UserError: E270 there are no rows in it, E271 not as many labels as texts, E272 it is nothing that holds rows.
    """
    if (found := paths(data)) is not None:
        return found
    path = folder / f"{name}.jsonl"
    lines = [json.dumps(row, ensure_ascii=False, default=_plain) for row in rows(data)]
    if not lines:
        raise UserError("E270", kind=_kind(data))
    files.write_text(path, "\n".join(lines) + "\n")
    return [str(path)]


def rows(data: Any) -> Iterator[dict[str, Any]]:
    """The rows of whatever holds them, one dict each.

    Raises:
        UserError: E271, E272.
    """
    if hasattr(data, "to_dicts"):  # polars
        return iter(data.to_dicts())
    if hasattr(data, "iloc"):  # pandas
        return iter(data.astype(object).where(data.notna(), None).to_dict("records"))
    if hasattr(data, "column_names") and hasattr(data, "features"):  # datasets
        return _named(data)
    if isinstance(data, tuple) and len(data) == 2:
        return _paired(*data)
    if hasattr(data, "dataset") and hasattr(data, "collate_fn"):  # a DataLoader, read once
        return (row for batch in data for row in _of_batch(batch))
    return _listed(data)


def _of_batch(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of one batch: columns by name, or (x, y)."""
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        columns = {name: list(batch[name]) for name in batch.keys()}  # noqa: SIM118  (a BatchEncoding is no mapping)
        return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    if isinstance(batch, list | tuple) and len(batch) == 2:
        x, y = batch
        named = [{IDS: ids} for ids in x] if hasattr(x, "dtype") else [_texts(each) for each in x]
        return ({**row, LABEL: label} for row, label in zip(named, _sequence(y), strict=True))
    raise UserError("E272", kind=_kind(batch))


def _named(data: Any) -> Iterator[dict[str, Any]]:
    """Rows of a Hugging Face dataset, with the names of its classes in the place of their numbers."""
    features = data.features or {}
    classes = {column: kind.names for column, kind in features.items() if getattr(kind, "names", None)}
    for row in data:
        yield {
            column: classes[column][value] if column in classes and isinstance(value, int) and value >= 0 else value
            for column, value in row.items()
        }


def _paired(texts: Any, labels: Any) -> Iterator[dict[str, Any]]:
    """Rows of (x, y)."""
    x, y = _sequence(texts), _sequence(labels)
    if len(x) != len(y):
        raise UserError("E271", texts=len(x), labels=len(y))
    return ({**_texts(each), LABEL: label} for each, label in zip(x, y, strict=True))


def _sequence(values: Any) -> list[Any]:
    """A list, array, tensor or column as a list of plain values."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(plain, str | bytes | Mapping) or not isinstance(plain, Iterable):
        raise UserError("E272", kind=_kind(values))
    return list(plain)


def _texts(value: Any) -> dict[str, Any]:
    """One text, or two of them."""
    if isinstance(value, list | tuple) and len(value) == 2:
        return {TEXT: value[0], PAIR: value[1]}
    return {TEXT: value}


def _listed(data: Any) -> Iterator[dict[str, Any]]:
    """Rows one by one: dicts, texts, or pairs of a text and its label."""
    each = iter(_items(data))
    for first in each:
        if not isinstance(first, str | Mapping | tuple):
            raise UserError("E272", kind=_kind(data))
        yield from map(_row, chain([first], each))


def _items(data: Any) -> Iterable[Any]:
    if isinstance(data, str | bytes | Mapping):
        raise UserError("E272", kind=_kind(data))
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Sequence):
        return (data[index] for index in range(len(data)))  # a torch Dataset ends by its length alone
    if not isinstance(data, Iterable):
        raise UserError("E272", kind=_kind(data))
    return data


def _row(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and len(value) == 2:
        return {**_texts(value[0]), LABEL: value[1]}
    if isinstance(value, str):
        return {TEXT: value}
    raise UserError("E272", kind=_kind(value))


def _plain(value: Any) -> Any:
    """Numbers and arrays of other libraries, for JSON."""
    for way in ("item", "tolist", "isoformat"):
        if hasattr(value, way) and (way != "item" or getattr(value, "ndim", 0) == 0):
            return getattr(value, way)()
    return str(value)


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
