"""A row of a table: its columns, and the class or the number that is to be learned from them."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes import labelled
from danlu.data.shapes.value import Flaw, Row, kind
from danlu.quantity import cell

MARK = "record"
COLUMNS = ("label",)  # or score
OPTIONAL = ("record", "score")
CLEAN = ()  # equal rows are no mistake in a table
_TARGETS = ("label", "score")


def holds(row: Mapping[str, Any]) -> bool:
    """Whether a record has something to learn."""
    return any(name in row for name in _TARGETS)


def canonical(row: Mapping[str, Any]) -> Row:
    """Columns in their order, with spaces around values gone and what is missing None.

    Where there is a class it is learned, and a column named score is one like the others.
    """
    if "record" in row:
        return dict(row)
    target = next((name for name in _TARGETS if name in row), None)
    if target is None:
        raise Flaw("shape", wanted=" / ".join(_TARGETS), found=", ".join(map(str, row)))
    learned = _label(row["label"]) if target == "label" else str(number(row["score"]))
    columns = {str(name).strip(): column(value, str(name)) for name, value in row.items() if name != target}
    return {"record": columns, target: learned}


def plain(row: Row) -> str:
    return "\n".join(f"{name}: {'' if value is None else value}" for name, value in row["record"].items())


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return row


def stored(row: Row) -> dict[str, str]:
    return {**row, "record": json.dumps(row["record"], ensure_ascii=False), "text": plain(row)}


def loaded(row: Mapping[str, Any]) -> Row:
    target = {name: row[name] for name in _TARGETS if row.get(name) is not None}
    return {"record": json.loads(row["record"]), **target}


def column(value: Any, name: str) -> str | int | float | bool | None:
    """A value of a column; None where it is missing.

    Raises:
        Flaw: cell, it is a list or an object.
    """
    try:
        return cell(value)
    except TypeError:
        raise Flaw("cell", name=name, found=kind(value)) from None


def number(value: Any) -> float:
    """A number to learn.

    Raises:
        Flaw: no_number, it is none, or not finite.
    """
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Flaw("no_number", found=repr(value)[:40])
    return found


def _label(value: Any) -> str:
    """Like that of a text, without a final full stop, which UCI's test files add."""
    return labelled.label(value).removesuffix(".") or "."
