"""A text, or two of them, and the labels that it has: any number of them, also none."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes import labelled
from danlu.data.shapes.value import Flaw, Row, required

MARK = "labels"
COLUMNS = ("text", "labels")
OPTIONAL = ("text_pair",)
CLEAN = labelled.CLEAN
SIGNS = "|;,，；、"  # between labels that are written as one text: the first of these that a text holds


def canonical(row: Mapping[str, Any]) -> Row:
    required(row, COLUMNS)
    return {**labelled.read_texts(row), "labels": labels(row["labels"])}


def plain(row: Row) -> str:
    return labelled.plain(row)


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return labelled.mapped(row, change)


def stored(row: Row) -> dict[str, str]:
    return {**labelled.stored(row), "labels": json.dumps(row["labels"], ensure_ascii=False)}


def loaded(row: Mapping[str, Any]) -> Row:
    return {**labelled.loaded_texts(row), "labels": json.loads(row["labels"])}


def labels(value: Any) -> list[str]:
    """Labels, each once: of a list, of its JSON, or of a text between signs.

    Raises:
        Flaw: no_labels, nothing is said of them; labels, it is none of these.
    """
    if value is None:
        raise Flaw("no_labels")
    if isinstance(value, str):
        value = _written(value)
    if not isinstance(value, list):
        raise Flaw("labels", found=repr(value)[:40])
    return list(dict.fromkeys(labelled.label(each) for each in value))


def _written(value: str) -> Any:
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise Flaw("labels", found=repr(value)[:40]) from None
    sign = next((sign for sign in SIGNS if sign in value), SIGNS[0])
    return [each for each in value.split(sign) if each.strip()]
