"""Raw files that hold texts and their classes: found by looking."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from danlu.data import clues, starter
from danlu.data.clues import Columns
from danlu.data.sources import SourceFile

LABELS = ("label", "labels", "class", "category", "sentiment", "polarity", "stars", "rating", "topic", "intent",
          "target", "标签", "类别", "情感")  # fmt: skip
_CLASSES = 200  # at most
# Of chnsenticorp_htl's test rows two layers got 0.877 right, and four never left the majority's 0.69.
_DEPTH, _MANY = "2", 100_000  # layers, and the rows from which more may be fed
# What did better than the usual settings on sst2 (0.757, not 0.727 right) and on trec's six classes (0.82, not 0.79).
_TRAIN = {"epochs": "8.0", "optimizer": '"adamw"', "lr": "1e-3", "dropout": "0.3"}


def look(source: SourceFile) -> starter.Found | None:
    """Texts with their class in a file; None where there are none."""
    found = clues.texts(source, "label", _label)
    if found is None:
        return None
    classes = Counter(str(row["label"]) for row in found.rows)
    said = {"classes": len(classes), **clues.shares(classes)}
    settings = starter.settings(found.written, _TRAIN, _DEPTH if found.count < _MANY else '"auto"')
    return starter.Found("text_classification", found.keys, found.count, "labelled", said, settings)


def _label(columns: Columns) -> str:
    """The column of classes: by its name, or the last where the columns have no names that could tell."""
    labels = [name for name, values in columns.items() if _names_classes(values)]
    return clues.named(labels, LABELS) or (labels[-1] if labels and all(name.isdigit() for name in labels) else "")


def _names_classes(values: Sequence[Any]) -> bool:
    """Few values, short and each often there."""
    if not all(isinstance(value, str | int | float | None) for value in values):
        return False
    found = Counter(str(value).strip() for value in values)
    return 2 <= len(found) <= min(_CLASSES, max(2, len(values) // 5)) and max(map(len, found)) <= 40 and "" not in found
