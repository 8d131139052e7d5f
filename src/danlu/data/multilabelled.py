"""Raw files that hold texts and their sets of labels: found by looking."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from danlu.data import clues, starter
from danlu.data.clues import Columns
from danlu.data.shapes.multilabelled import labels
from danlu.data.shapes.value import Flaw
from danlu.data.sources import SourceFile

NAMES = ("labels", "tags", "categories", "topics", "keywords", "genres", "标签", "关键词", "类别")
_MOST = 500  # labels
_LONG = 40  # characters of a label
_TRAIN = {"epochs": "8.0", "optimizer": '"adamw"', "lr": "1e-3", "dropout": "0.3"}


def look(source: SourceFile) -> starter.Found | None:
    """Texts with sets of labels in a file; None where there are none."""
    found = clues.texts(source, "labels", _labels)
    if found is None:
        return None
    sets = [labels(row["labels"]) for row in found.rows if row["labels"] is not None]
    said = {"labels": len(set().union(*sets)), "each": f"{fmean(map(len, sets)):.1f}"}
    settings = starter.settings(found.written, _TRAIN)
    return starter.Found("multi_label_classification", found.keys, found.count, "multilabelled", said, settings)


def _labels(columns: Columns) -> str:
    return clues.named([name for name, values in columns.items() if _are_sets(values)], NAMES)


def _are_sets(values: Sequence[Any]) -> bool:
    """Lists of few short labels, which occur again, some rows with several of them."""
    try:
        found = [labels(value) for value in values if value is not None]
    except Flaw:
        return False
    counted = Counter(label for each in found for label in each)
    several = any(len(each) > 1 for each in found)
    again = sum(times > 1 for times in counted.values()) > len(counted) // 2
    return several and again and len(counted) <= _MOST and max(map(len, counted)) <= _LONG
