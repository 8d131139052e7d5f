"""Raw files that hold texts and what is named in them: columns of words and tags, or lists and spans in JSON."""

from collections.abc import Iterator, Mapping
from itertools import islice
from statistics import fmean
from typing import Any

from danlu.data import clues, shapes, starter
from danlu.data.shapes import Flaw, Row, tagged
from danlu.data.sources import SourceFile
from danlu.metrics.entities import is_tag

_NAMES = {
    "tokens": ("tokens", "words"), "tags": ("tags", "ner_tags", "labels", "ner"),
    "text": ("text", "sentence", "content"), "spans": ("spans", "entities", "label", "labels", "annotations"),
}  # fmt: skip
_FIRST = 20  # records, of which the first that can be read tells the columns
_LINES = 2000  # lines of a file of columns that are looked at
_ALIKE = 0.98  # share of the lines that must be of one form
# What did better than the usual settings on Chinese resumes.
_TRAIN = {"epochs": "20.0", "optimizer": '"adamw"', "lr": "1e-3", "dropout": "0.2", "select": '"last"'}


def look(source: SourceFile) -> starter.Found | None:
    """Tagged rows in a file; None where there are none."""
    for keys in _ways(source):
        rows = [row for row in _rows(source, keys) if row]
        kinds = [named for row in rows for *_, named in row["spans"]]
        if kinds:
            said = {"kinds": ", ".join(sorted(set(kinds))[:8]), "entities": f"{len(kinds):,}"}
            settings = starter.settings((row["text"] for row in rows), _TRAIN)
            return starter.Found("token_classification", keys, len(rows), "tagged", said, settings)
    return None


def _ways(source: SourceFile) -> Iterator[dict[str, Any]]:
    """The ways in which the file may be read."""
    if source.format == "conll":
        yield {}
    elif source.format == "text" and _is_columns(source):
        yield {"format": "conll"}
    elif source.format in ("json", "jsonl", "parquet"):
        first = next(iter(clues.rows(source, {}, _FIRST)), {})
        for form in (tagged.WORDS, tagged.COLUMNS):
            found = {ours: clues.named(first, _NAMES[ours]) for ours in form}
            if all(found.values()):
                yield clues.renaming(found)


def _is_columns(source: SourceFile) -> bool:
    """Whether the lines that are not blank end with a tag, and some name something."""
    lines = [line.split() for _, line in islice(source.lines(), _LINES) if line.strip()]
    tags = [fields[-1] for fields in lines if len(fields) > 1 and is_tag(fields[-1])]
    return bool(tags) and len(tags) >= _ALIKE * len(lines) and any(tag != "O" for tag in tags)


def _rows(source: SourceFile, keys: Mapping[str, Any]) -> list[Row | None]:
    """Records as rows of ours, None for those that are none; nothing where most are none."""
    rows = [_row(raw, keys.get("columns", {})) for raw in clues.records(source, keys)]
    return rows if rows and fmean(row is not None for row in rows) > 0.5 else []


def _row(raw: Any, columns: Mapping[str, str]) -> Row | None:
    try:
        return None if isinstance(raw, Flaw) else shapes.canonical(shapes.renamed(raw, columns), "tagged")
    except Flaw:
        return None
