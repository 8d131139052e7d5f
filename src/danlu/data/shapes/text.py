"""A text."""

from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes import value
from danlu.data.shapes.value import Flaw, Row

MARK = "text"
COLUMNS = ("text",)
OPTIONAL = ()
CLEAN = ("normalize", "drop_empty", "drop_short", "drop_garbled", "drop_symbols", "drop_repetitive", "dedup")


def canonical(row: Mapping[str, Any]) -> Row:
    if "text" not in row:
        raise Flaw("shape", wanted="text", found=", ".join(map(str, row)))
    return {"text": value.text(row["text"], "text")}


def plain(row: Row) -> str:
    return str(row["text"])


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return {"text": change(row["text"])}


def stored(row: Row) -> dict[str, str]:
    return row


def loaded(row: Mapping[str, Any]) -> Row:
    return {"text": row["text"]}
