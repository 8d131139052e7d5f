"""Raw files that hold texts in pairs that belong together: found by looking."""

from collections.abc import Mapping, Sequence

from danlu.data import clues, starter
from danlu.data.shapes import Row
from danlu.data.shapes.alike import TEXTS
from danlu.data.sources import SourceFile

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
FIRSTS = ("anchor", "query", "sentence1", "text", "question1", "premise")
SECONDS = ("positive", "pos", "sentence2", "text_pair", "question2", "hypothesis")
THIRDS = ("negative", "neg", "hard_negative")
SCORES = ("score", "similarity", "similarity_score", "relatedness", "相似度", "分数")
_TRAIN = {"epochs": "8.0", "batch_tokens": "4096", "optimizer": '"adamw"', "lr": "1e-3", "dropout": "0.1"}


def look(source: SourceFile) -> starter.Found | None:
    """Pairs of texts in a file; None where there are none, or the columns do not say which belongs to which."""
    found = clues.rows(source, {})
    rows = clues.sample(found)
    columns = _columns(rows) if rows else {}
    if not {"text", "positive"} <= columns.keys():
        return None
    written = (str(row[columns[name]]) for row in rows for name in TEXTS if name in columns)
    settings = starter.settings(written, _TRAIN)
    return starter.Found("sentence_embedding", clues.renaming(columns), len(found), "alike", {}, settings)


def _columns(rows: Sequence[Row]) -> Mapping[str, str]:
    """Ours -> yours, those that are known by their names and hold what they should."""
    values = {str(name): [row.get(name) for row in rows] for name in rows[0]}
    texts = [name for name, each in values.items() if all(isinstance(value, str | None) for value in each)]
    numbers = [name for name, each in values.items() if None not in map(clues.number, each)]
    known = {"text": (texts, FIRSTS), "positive": (texts, SECONDS), "negative": (texts, THIRDS),
             "score": (numbers, SCORES)}  # fmt: skip
    return {ours: yours for ours, names in known.items() if (yours := clues.named(*names))}
