"""Raw files that hold tables: what is learned from their columns, found by looking."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from danlu import messages
from danlu.data import clues, starter
from danlu.data.shapes.record import column
from danlu.data.shapes.value import Flaw, Row
from danlu.data.sources import SourceFile

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
# Columns that are often what is to be learned, the surest first; else it is the last one.
TARGETS = ("target", "label", "survived", "income", "species", "diagnosis", "outcome", "churn", "default", "y", "class",
           "quality", "price", "目标", "标签", "类别")  # fmt: skip
_WORDS = 6.0  # words of a text column's values, on average: then it is no table
_PURE = 50  # categories of a column up to which it may give the answer away
_FEW, _SOME = 2_000, 20_000  # rows
_STEPS = {_FEW: (32, 800), _SOME: (64, 2_000)}  # up to so many rows: rows of a step, and steps


def look(source: SourceFile) -> starter.Found | None:
    """A table in a file; None where there is none."""
    rows = clues.rows(source, {})
    if not rows or len(rows[0]) < 3 or not _is_table(rows):
        return None
    columns = _columns(rows)
    if columns is None or (target := _target(columns, source.path)) is None:
        return None
    ours = "score" if clues.are_numbers(columns[target]) else "label"
    keys = clues.renaming({ours: target})
    if ours == "label" and (told := _giving_away(columns, target)):
        keys["ignore"] = told
    task = "tabular_regression" if ours == "score" else "tabular_classification"
    learned = len(columns) - 1 - len(keys.get("ignore", ()))
    said = {"columns": learned, "target": target, "about": _about(columns[target], ours)}
    return starter.Found(task, keys, len(rows), "table", said, _settings(len(rows), learned))


def _is_table(rows: Sequence[Row]) -> bool:
    """Whether all rows have the columns of the first, and these are no data themselves."""
    names = [str(name) for name in rows[0]]
    return all(row.keys() == rows[0].keys() for row in rows) and not any(clues.number(name) for name in names)


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]] | None:
    """The values of each column, None where missing; None where one holds prose, or lists and objects."""
    try:
        columns = {str(name).strip(): [column(row[name], str(name)) for row in rows] for name in rows[0]}
    except Flaw:
        return None
    for values in columns.values():
        texts = [value for value in values if isinstance(value, str) and clues.number(value) is None]
        if len(texts) > len(values) // 2 and fmean(len(text.split()) for text in texts) > _WORDS:
            return None
    return columns


def _target(columns: Mapping[str, Sequence[Any]], path: Path) -> str | None:
    """The column to learn: by its name, or that of the file, else the last that can be learned."""
    lower = {name.lower(): name for name in columns}
    stem = path.name.split(".")[0].lower()
    named = next((lower[name] for name in (stem, *TARGETS) if name in lower), None)
    wanted = [named] if named else list(columns)[::-1]
    return next((name for name in wanted if _can_be_learned(columns[name])), None)


def _can_be_learned(values: Sequence[Any]) -> bool:
    found = Counter(value for value in values if value is not None)
    return len(found) > 1 and (clues.are_numbers(values) or len(found) <= max(2, len(values) // 5))


def _giving_away(columns: Mapping[str, Sequence[Any]], target: str) -> list[str]:
    """Columns of few categories, each of which has one class alone: known, most likely, only when the class is."""
    found = []
    for name, values in columns.items():
        classes = defaultdict(set)
        for value, label in zip(values, columns[target], strict=True):
            classes[value].add(label)
        texts = any(isinstance(value, str) and clues.number(value) is None for value in classes)
        if name != target and texts and 2 <= len(classes) <= _PURE and all(len(each) == 1 for each in classes.values()):
            found.append(name)
    return found


def _about(values: Sequence[Any], ours: str) -> str:
    known = [value for value in values if value is not None]
    if ours == "score":
        numbers = [float(value) for value in known]
        return messages.text("init.numbers", low=f"{min(numbers):g}", high=f"{max(numbers):g}")
    most, times = Counter(str(value) for value in known).most_common(1)[0]
    return messages.text("init.classes", classes=len(set(known)), most=most, share=f"{times / len(known):.0%}")


def _settings(count: int, columns: int) -> starter.Settings:
    rows, epochs = _pace(count)
    train = {"epochs": f"{epochs:.1f}", "batch_tokens": str(rows * max(1, columns)), "optimizer": '"adamw"',
             "lr": "1e-3", "dropout": "0.2"}  # fmt: skip
    return {"model": {"depth": "3"}, "train": train}


def _pace(rows: int) -> tuple[int, float]:
    """Rows of a step, and times over the rows."""
    size, steps = next((pace for most, pace in _STEPS.items() if rows <= most), (256, 1_500))
    return size, float(min(200, max(5, round(steps * size / max(rows, 1)))))
