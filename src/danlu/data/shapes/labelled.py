"""A text, or two of them, and the class that it belongs to."""

from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes.value import Flaw, Row, required, text

MARK = "label"
COLUMNS = ("text", "label")
OPTIONAL = ("text_pair",)
CLEAN = ("normalize", "drop_empty", "dedup")


def canonical(row: Mapping[str, Any]) -> Row:
    required(row, COLUMNS)
    return {**read_texts(row), "label": label(row["label"])}


def plain(row: Row) -> str:
    """All text of the row, as one string."""
    return str(row["text"]) if row.get("text_pair") is None else f"{row['text']}\n{row['text_pair']}"


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return {name: change(value) if name in ("text", "text_pair") else value for name, value in row.items()}


def stored(row: Row) -> dict[str, str]:
    return row | {"text": plain(row)}


def loaded(row: Mapping[str, Any]) -> Row:
    return {**loaded_texts(row), "label": row["label"]}


def read_texts(row: Mapping[str, Any]) -> Row:
    """The texts of a record."""
    return {"text": "", **{name: text(row[name], name) for name in ("text", "text_pair") if row.get(name) is not None}}


def loaded_texts(row: Mapping[str, Any]) -> Row:
    """The texts of a stored row."""
    first, second = texts(row)
    return {"text": first} | ({"text_pair": second} if second is not None else {})


def texts(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """The one text of a stored row, or its two."""
    pair = row.get("text_pair")
    return (row["text"], None) if pair is None else (row["text"].removesuffix(f"\n{pair}"), pair)


def label(value: Any) -> str:
    """A label as a string: 1, 1.0 and "1" are one; true and "true" are one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Flaw("no_label")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return text(value, "label").strip()
