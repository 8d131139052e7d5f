"""Raw files that hold questions with candidates, one of them right: found by looking."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from danlu.data import clues, formats, starter
from danlu.data.shapes import choice, renamed
from danlu.data.shapes.value import Flaw, Row
from danlu.data.sources import SourceFile

ALSO = (".xml",)  # files that are looked at, though they are read for no other task
FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
LABELS = ("label", "answer", "answerkey", "answer_key", "correct", "gold", "答案")
QUESTIONS = ("text", "question", "premise", "context", "sent1", "startphrase", "ctx", "story", "问题")
LISTS = ("choices", "options", "candidates", "endings", "选项")
_RIGHT = 0.98  # share of the rows that must be of that form
_TRAIN = {"epochs": "8.0", "optimizer": '"adamw"', "lr": "5e-4", "dropout": "0.1"}


def look(source: SourceFile) -> starter.Found | None:
    """Questions with candidates in a file; None where there are none."""
    keys = _way(source)
    found = clues.rows(source, keys)
    rows = clues.sample(found)
    columns = _columns(rows[0]) if rows else None
    if columns is None:
        return None
    read = [made for row in rows if (made := _read(row, columns))]
    if len(read) < _RIGHT * len(rows):
        return None
    said = {"each": f"{fmean(len(row['choices']) for row in read):.1f}"}
    settings = starter.settings((f"{row['text']} {max(row['choices'], key=starter.tokens)}" for row in read), _TRAIN)
    seen = starter.Found("multiple_choice", keys | clues.renaming(columns), len(found), "choices", said, settings)
    return replace(seen, beside=formats.ANSWERS) if keys.get("format") == "mctest" else seen


def _way(source: SourceFile) -> dict[str, Any]:
    """How the file is read: as COPA's, as MCTest's, or as any other of its kind."""
    if source.format == "text":
        return {"format": "copa"}
    answered = source.format == "tsv" and source.path.with_suffix(formats.ANSWERS).is_file()
    return {"format": "mctest", "clean": ["normalize", "drop_empty"]} if answered else {}


def _columns(row: Row) -> Mapping[str, str] | None:
    """Ours -> yours of a record's columns, those of the candidates aside where they have columns of their own."""
    lists = [name for name, value in row.items() if isinstance(value, list | dict)]
    known = {"label": (list(row), LABELS), "text": (list(row), QUESTIONS), "choices": (lists, LISTS)}
    found = {ours: clues.named(*names) for ours, names in known.items()}
    told = found["label"] or choice.told(row)
    return {ours: yours for ours, yours in found.items() if yours} if told else None


def _read(row: Row, columns: Mapping[str, str]) -> Row | None:
    try:
        given = renamed(row, columns)
        return choice.canonical(given) if choice.holds(given) else None
    except Flaw:
        return None
