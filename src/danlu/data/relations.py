"""Raw files that hold texts with two marked things and their relation: SemEval's blocks, or a table or JSON of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from danlu.data import clues, shapes, starter
from danlu.data.shapes import Flaw, Row
from danlu.data.sources import SourceFile

_TEXTS, _LABELS = ("text", "sentence"), ("label", "relation", "class")
_FIRST, _MARKED = 20, 10  # records, and how many of them must be marked for the others to be read
# What did better than the usual settings on SemEval-2010's task 8: 0.68 of its score half-way, where all of the text,
# and none of it hidden, had 0.52.
_TRAIN = {"epochs": "12.0", "optimizer": '"adamw"', "lr": "1e-3", "dropout": "0.3", "select": '"last"'}
_OPTIONS = {"around": "4", "hide": "0.1"}


def look(source: SourceFile) -> starter.Found | None:
    """Marked rows in a file; None where there are none."""
    for keys in _ways(source):
        rows = _rows(source, keys)
        labels = Counter(row["label"] for row in rows)
        if len(labels) > 1:
            said = {"labels": len(labels), **clues.shares(labels)}
            settings = starter.settings((row["text"] for row in rows), _TRAIN, options=_OPTIONS)
            return starter.Found("relation_extraction", keys, len(rows), "related", said, settings)
    return None


def _ways(source: SourceFile) -> Iterator[dict[str, Any]]:
    """The ways in which the file may be read."""
    if source.format == "text":
        yield {"format": "semeval"}
        return
    first = next(iter(clues.rows(source, {}, _FIRST)), {})
    found = {"text": clues.named(first, _TEXTS), "label": clues.named(first, _LABELS)}
    if all(found.values()):
        yield clues.renaming(found)


def _rows(source: SourceFile, keys: Mapping[str, Any]) -> list[Row]:
    """Records as rows of ours; none where the first few are none."""
    first = clues.records(source, keys, _FIRST)
    if len(first) == _FIRST and len(_read(first, keys)) < _MARKED:
        return []
    return _read(clues.records(source, keys), keys)


def _read(raws: list[Any], keys: Mapping[str, Any]) -> list[Row]:
    rows = []
    for raw in raws:
        try:
            if not isinstance(raw, Flaw):
                rows.append(shapes.canonical(shapes.renamed(raw, keys.get("columns", {})), "marked"))
        except Flaw:
            continue
    return rows
