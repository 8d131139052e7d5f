"""A text, and the text that is to be written for it: its translation, or its summary."""

from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes import value
from danlu.data.shapes.value import Row, required

MARK = "target"
COLUMNS = ("text", "target")
OPTIONAL = ()
CLEAN = ("normalize", "drop_empty", "dedup")


def canonical(row: Mapping[str, Any]) -> Row:
    required(row, COLUMNS)
    return {name: value.text(row[name], name) for name in COLUMNS}


def plain(row: Row) -> str:
    """Both texts; nothing where one of them is empty, for then there is nothing to learn."""
    return f"{row['text']}\n{row['target']}" if all(row[name].strip() for name in COLUMNS) else ""


def group(row: Row) -> str:
    """All that is written for one text stays in one split."""
    return str(row["text"])


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return {name: change(text) for name, text in row.items()}


def stored(row: Row) -> dict[str, str]:
    return {"text": f"{row['text']}\n{row['target']}", "target": row["target"]}


def loaded(row: Mapping[str, Any]) -> Row:
    return {"text": row["text"].removesuffix(f"\n{row['target']}"), "target": row["target"]}
