"""Raw files that hold questions about texts: SQuAD's and CMRC's JSON, or a record for each question."""

from typing import Any

from danlu.data import clues, shapes, starter
from danlu.data.shapes import Flaw, Row
from danlu.data.sources import SourceFile

FORMATS = ("json", "jsonl", "parquet")
# Few questions are learned by heart long before they are understood: a base model helps more than any of these.
_TRAIN = {"epochs": "8.0", "optimizer": '"adamw"', "lr": "5e-4", "dropout": "0.2"}


def look(source: SourceFile) -> starter.Found | None:
    """Questions in a file; None where there are none."""
    for keys in ({"format": "squad"}, {}) if source.format == "json" else ({},):
        rows = [row for raw in clues.rows(source, keys) if (row := _row(raw))]
        if rows:
            texts = {row["context"]: shapes.plain(row) for row in rows}
            said, settings = {"texts": f"{len(texts):,}"}, starter.settings(texts.values(), _TRAIN)
            return starter.Found("reading_comprehension", keys, len(rows), "questions", said, settings)
    return None


def _row(raw: dict[str, Any]) -> Row | None:
    try:
        return shapes.canonical(raw, "question") if shapes.holds(raw, "question") else None
    except Flaw:
        return None
