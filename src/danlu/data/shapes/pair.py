"""A prompt and its completion."""

from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes import value
from danlu.data.shapes.value import Flaw, Row

MARK = "prompt"
COLUMNS = ("prompt", "completion")
OPTIONAL = ()
CLEAN = ("normalize", "drop_empty", "drop_garbled", "dedup")


def canonical(row: Mapping[str, Any]) -> Row:
    if not set(COLUMNS) <= row.keys():
        raise Flaw("shape", wanted=" + ".join(COLUMNS), found=", ".join(map(str, row)))
    return {name: value.text(row[name], name) for name in COLUMNS}


def plain(row: Row) -> str:
    return f"{row['prompt']}\n{row['completion']}"


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return {name: change(text) for name, text in row.items()}


def stored(row: Row) -> dict[str, str]:
    return row


def loaded(row: Mapping[str, Any]) -> Row:
    return {name: row[name] for name in COLUMNS}
