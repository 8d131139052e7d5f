"""Raw files that hold texts, or pairs of them, with a number: found by looking."""

from danlu.data import clues, starter
from danlu.data.clues import Columns
from danlu.data.sources import SourceFile

SCORES = ("score", "similarity", "relatedness", "value", "rating", "stars", "label", "target", "分数", "相似度", "评分")
_TRAIN = {"epochs": "8.0", "optimizer": '"adamw"', "lr": "1e-3", "dropout": "0.3"}


def look(source: SourceFile) -> starter.Found | None:
    """Texts with numbers in a file; None where there are none."""
    found = clues.texts(source, "score", _score)
    if found is None:
        return None
    message = "scored_pairs" if "text_pair" in found.rows[0] else "scored"
    settings = starter.settings(found.written, _TRAIN)
    return starter.Found("text_regression", found.keys, found.count, message, {}, settings)


def _score(columns: Columns) -> str:
    return clues.named([name for name, values in columns.items() if clues.are_numbers(values)], SCORES)
