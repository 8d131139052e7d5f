"""Two texts that belong together, perhaps beside a third that does not; or two and how alike they are."""

from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes import labelled
from danlu.data.shapes.record import number
from danlu.data.shapes.value import Flaw, Row, required, text

MARK = "positive"
COLUMNS = ("text", "positive")
OPTIONAL = ("negative", "score")
CLEAN = labelled.CLEAN
TEXTS = ("text", "positive", "negative")


def canonical(row: Mapping[str, Any]) -> Row:
    """The record in our columns; the second text may be called `text_pair`, as in other shapes.

    Raises:
        Flaw: column, type; empty, one of the texts is; number, the score is none.
    """
    given = {"positive" if name == "text_pair" and "positive" not in row else name: row[name] for name in row}
    required(given, COLUMNS)
    made = {name: text(given[name], name) for name in TEXTS if given.get(name) is not None or name != "negative"}
    if absent := [name for name, value in made.items() if not value.strip()]:
        raise Flaw("empty", name=absent[0])
    return made | ({"score": str(number(given["score"]))} if given.get("score") is not None else {})


def plain(row: Row) -> str:
    """All text of the row, as one string."""
    return "\n".join(row[name] for name in TEXTS if row.get(name) is not None)


def group(row: Row) -> str:
    """What decides on the split: all that belongs to one text stays together."""
    return str(row["text"])


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return {name: change(value) if name in TEXTS else value for name, value in row.items()}


def stored(row: Row) -> dict[str, str]:
    return row | {"text": plain(row)}


def loaded(row: Mapping[str, Any]) -> Row:
    made = {name: row[name] for name in (*COLUMNS, *OPTIONAL) if row.get(name) is not None}
    others = "".join(f"\n{made[name]}" for name in TEXTS[1:] if name in made)
    return made | {"text": row["text"].removesuffix(others)}
