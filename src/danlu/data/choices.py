"""Raw files that hold questions with candidates, one of them right: found by looking, and the recipe that learns it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.data import labelled, sources, starter
from danlu.data.shapes import choice, renamed
from danlu.data.shapes.value import Flaw, Row
from danlu.data.starter import Found

LABELS = ("label", "answer", "answerkey", "answer_key", "correct", "gold", "答案")
QUESTIONS = ("text", "question", "premise", "context", "sent1", "startphrase", "ctx", "story", "问题")
LISTS = ("choices", "options", "candidates", "endings", "选项")
_RIGHT = 0.98  # share of the rows that must be of that form
_TRAIN = (("epochs", "8.0"), ("optimizer", '"adamw"'), ("lr", "5e-4"), ("dropout", "0.1"))


@dataclass(frozen=True)
class Choices(Found):
    """How to read rows of questions and candidates."""

    candidates: float  # of a row, on average
    context: int


def look(path: Path) -> Choices | None:
    """Questions with candidates at a file or folder; None where there are none.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    files = starter.by_split(sources.discover([str(path)], Path(path.anchor)))
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    if source.format in ("text", "code", "conll"):
        return None
    rows, count = labelled.records_of(source, {})
    columns = _columns(rows[0]) if rows else None
    read = [made for row in rows if (made := _read(row, columns))] if columns is not None else []
    if not rows or len(read) < _RIGHT * len(rows):
        return None
    named = {ours: yours for ours, yours in (columns or {}).items() if ours != yours}
    lengths = (starter.tokens(row["text"]) + max(map(starter.tokens, row["choices"])) + 1 for row in read)
    each = sum(len(row["choices"]) for row in read) / len(read)
    return Choices(files, {"columns": named} if named else {}, count, each, starter.context(lengths))


def _columns(row: Row) -> Mapping[str, str] | None:
    """Ours -> yours of a record's columns, those of the candidates aside where they have columns of their own."""
    lists = [name for name, value in row.items() if isinstance(value, list | dict)]
    known = {"label": (list(row), LABELS), "text": (list(row), QUESTIONS), "choices": (lists, LISTS)}
    found = {ours: labelled.named(*names) for ours, names in known.items()}
    return {ours: yours for ours, yours in found.items() if yours} if found["label"] else None


def _read(row: Row, columns: Any) -> Row | None:
    try:
        given = renamed(row, columns)
        return choice.canonical(given) if choice.holds(given) else None
    except Flaw:
        return None


def recipe_text(found: Choices, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB", "each": f"{found.candidates:.1f}"}
    about = messages.text("init.choices", **described)
    return starter.text(about, "multiple_choice", found, path, found.context, _TRAIN)
