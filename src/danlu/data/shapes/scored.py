"""A text, or two of them, and the number that belongs to it."""

from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes import labelled
from danlu.data.shapes.record import number
from danlu.data.shapes.value import Row, required

MARK = "score"
COLUMNS = ("text", "score")
OPTIONAL = ("text_pair",)
CLEAN = labelled.CLEAN


def canonical(row: Mapping[str, Any]) -> Row:
    required(row, COLUMNS)
    return {**labelled.read_texts(row), "score": str(number(row["score"]))}


def plain(row: Row) -> str:
    return labelled.plain(row)


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return labelled.mapped(row, change)


def stored(row: Row) -> dict[str, str]:
    return labelled.stored(row)


def loaded(row: Mapping[str, Any]) -> Row:
    return {**labelled.loaded_texts(row), "score": row["score"]}
