"""A text in which two things are marked, <e1>so</e1> and <e2>so</e2>, and the relation between them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes.labelled import label
from danlu.data.shapes.value import Flaw, Row, required, text

MARK = "marked"
COLUMNS = ("text", "label")
OPTIONAL = ("marked",)  # the two things, made from the text
CLEAN = ("normalize", "drop_empty", "dedup")
TAGS = ("<e1>", "</e1>", "<e2>", "</e2>")
_TAG = re.compile("|".join(TAGS))


def canonical(row: Mapping[str, Any]) -> Row:
    """The record with its marks in the text; `e1` and `e2` may be given as [begin, end] in characters instead.

    Raises:
        Flaw: marks, span_outside; or what a text and a label raise.
    """
    required(row, COLUMNS)
    whole = text(row["text"], "text")
    if "e1" in row and "e2" in row:
        whole = _inserted(whole, row["e1"], row["e2"])
    return {"text": whole, "marked": _named(whole), "label": label(row["label"])}


def plain(row: Row) -> str:
    """All text of the row, marks and all: another pair of the same sentence is another row."""
    return str(row["text"])


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    whole = change(row["text"])
    return row | {"text": whole, "marked": _named(whole)}


def stored(row: Row) -> dict[str, str]:
    return row


def loaded(row: Mapping[str, Any]) -> Row:
    return {name: row[name] for name in ("text", "marked", "label")}


def _named(marked: str) -> str:
    """The two things that are marked, e1 first."""
    found = parts(marked)
    one, two = (found[found.index(tag) + 1] for tag in TAGS[::2])
    return f"{one.strip()} · {two.strip()}"


def parts(marked: str) -> list[str]:
    """The text cut at its marks: what stands before, a mark, what it opens, a mark, ... (9 parts).

    Raises:
        Flaw: marks, it does not hold each of the two once, one after the other.
    """
    marks = [match[0] for match in _TAG.finditer(marked)]
    pieces = _TAG.split(marked)
    if marks not in ([*TAGS], [*TAGS[2:], *TAGS[:2]]) or not pieces[1].strip() or not pieces[3].strip():
        raise Flaw("marks", found=" ".join(marks) or "-")
    return [part for both in zip(pieces, [*marks, ""], strict=True) for part in both][:-1]


def _inserted(whole: str, one: Any, two: Any) -> str:
    """The text with the marks put in at these characters, from the end on."""
    for (opens, closes), span in sorted(zip((TAGS[:2], TAGS[2:]), (one, two), strict=True), key=_begins, reverse=True):
        start, end = span if isinstance(span, list | tuple) and len(span) == 2 else (-1, -1)
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(whole)):
            raise Flaw("span_outside", start=start, end=end, type=opens, length=len(whole))
        whole = whole[:start] + opens + whole[start:end] + closes + whole[end:]
    return whole


def _begins(marked: Any) -> int:
    span = marked[1]
    return span[0] if isinstance(span, list | tuple) and span and isinstance(span[0], int) else -1
