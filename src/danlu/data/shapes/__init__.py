"""The shapes of a row, one file each, and how the shapes of others become ours.

A shape states its columns and how it is cleaned; `canonical` makes a record ours, `plain` is all of its text, `mapped`
changes its texts, and `stored` and `loaded` are its way to a file and back. Which shape a row of ours has, its MARK
tells: the column that no other has.
"""

import importlib
import json
import math
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from danlu import catalogue
from danlu.data.shapes.labelled import texts
from danlu.data.shapes.value import Flaw, Row

__all__ = ["Flaw", "Row", "Shape", "canonical", "content", "group", "holds", "loaded", "mapped", "of", "plain",
           "renamed", "shape_of", "stored", "texts", "together"]  # fmt: skip

Shape = str
_LAST = ("labelled", "text")  # their marks stand in other shapes too


@cache
def names() -> tuple[Shape, ...]:
    """All shapes, those that are told by more before the others."""
    return (*(name for name in catalogue.shapes() if name not in _LAST), *_LAST)


@cache  # asked for every row
def of(shape: Shape) -> Any:
    """The module of a shape."""
    return importlib.import_module(f"danlu.data.shapes.{shape}")


@cache
def _marks() -> tuple[tuple[str, Any], ...]:
    """The mark of each shape, and its module."""
    return tuple((of(name).MARK, of(name)) for name in names())


def _form(row: Mapping[str, Any]) -> Any:
    """The module of the shape that a row of ours has."""
    return _marked(tuple(name for name, value in row.items() if value is not None))


@lru_cache(1024)  # rows of one source have few sets of columns
def _marked(columns: tuple[str, ...]) -> Any:
    return next(form for mark, form in _marks() if mark in columns)


def renamed(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    """The record with ours = "yours" applied; yours is no column any more.

    Raises:
        Flaw: column, a named column is absent.
    """
    absent = [yours for yours in columns.values() if yours not in raw]
    if absent:
        raise Flaw("column", column=absent[0], found=", ".join(raw))
    taken = set(columns.values())
    kept = {name: value for name, value in raw.items() if name not in taken}
    return {**kept, **{ours: raw[yours] for ours, yours in columns.items()}}


def shape_of(row: Mapping[str, Any]) -> Shape | None:
    """The shape of a renamed record, by the names of its fields; None when there is none."""
    if "messages" in row or "conversations" in row or {"instruction", "output"} <= row.keys():
        return "chat"
    if {"prompt", "completion"} <= row.keys():
        return "pair"
    return "text" if "text" in row else None


def holds(row: Mapping[str, Any], shape: Shape) -> bool:
    """Whether a record has what a row of that shape needs; a pair is a chat of two turns."""
    if own := getattr(of(shape), "holds", None):
        return bool(own(row))
    return shape_of(row) in ("chat", "pair") if shape == "chat" else set(of(shape).COLUMNS) <= row.keys()


def canonical(row: Mapping[str, Any], shape: Shape) -> Row:
    """The record in our columns for `shape`; a pair becomes a chat where chats are wanted.

    Raises:
        Flaw: a field is absent, is no text, or holds half of a surrogate pair; a chat without an answer.
    """
    made: Row = of(shape).canonical(row)
    return made


def plain(row: Row) -> str:
    """All text of a canonical row, as one string: what is filtered and compared."""
    return str(_form(row).plain(row))


def content(row: Row) -> str:
    """Canonical JSON of a row's content: what is hashed."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    """The row with `change` applied to each of its texts."""
    made: Row = _form(row).mapped(row, change)
    return made


def group(row: Row) -> str:
    """What decides on the split of a row, where not all of its content does; else nothing."""
    own = getattr(_form(row), "group", None)
    return str(own(row)) if own else ""


def together(shape: Shape) -> float:
    """How many rows of one group stay in one split, at most."""
    return float(getattr(of(shape), "TOGETHER", math.inf))


def stored(row: Row) -> dict[str, str]:
    """The row as strings for a parquet file, where `text` is all of its text."""
    made: dict[str, str] = _form(row).stored(row)
    return made


def loaded(row: Mapping[str, Any]) -> Row:
    """A row as it was before `stored`, without id and source."""
    made: Row = _form(row).loaded(row)
    return made
