"""Raw files that hold texts and their sets of labels: found by looking, and the recipe that learns them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from danlu import messages
from danlu.data import labelled, sources, starter
from danlu.data.shapes.multilabelled import labels
from danlu.data.shapes.value import Flaw, Row
from danlu.data.starter import Found

NAMES = ("labels", "tags", "categories", "topics", "keywords", "genres", "标签", "关键词", "类别")
_MOST = 500  # labels
_LONG = 40  # characters of a label
_TRAIN = (("epochs", "8.0"), ("optimizer", '"adamw"'), ("lr", "1e-3"), ("dropout", "0.3"))


@dataclass(frozen=True)
class Sets(Found):
    """How to read rows of texts and their labels."""

    labels: int  # different ones among the rows looked at
    each: float  # of a row, on average
    context: int


def look(path: Path) -> Sets | None:
    """Texts with sets of labels at a file or folder; None where there are none.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    files = starter.by_split(sources.discover([str(path)], Path(path.anchor)))
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    for keys in labelled.ways(source):
        rows, count = labelled.records_of(source, keys)
        if rows and (columns := _columns(rows)):
            return _found(files, keys, columns, rows, count)
    return None


def _found(files: Any, keys: Any, columns: dict[str, str], rows: list[Row], count: int) -> Sets:
    named = {ours: yours for ours, yours in columns.items() if ours != yours}
    found = [labels(row[columns["labels"]]) for row in rows]
    lengths = (sum(starter.tokens(str(row[columns[each]])) for each in columns if each != "labels") for row in rows)
    different = len({label for each in found for label in each})
    said = {**keys, **({"columns": named} if named else {})}
    return Sets(files, said, count, different, fmean(map(len, found)), starter.context(lengths))


def _columns(rows: Sequence[Row]) -> dict[str, str] | None:
    """Ours -> yours for text, labels and, where there are two texts, text_pair; None where the rows are no such."""
    columns = {str(name): [row.get(name) for row in rows] for name in rows[0]}
    sets = labelled.named([name for name, values in columns.items() if _are_sets(values)], NAMES)
    written = {name: sum(len(str(value)) for value in values) for name, values in columns.items()
               if name != sets and labelled.is_text(values)}  # fmt: skip
    if not sets or not written:
        return None
    text = labelled.named(list(written), labelled.TEXTS) or max(written, key=written.__getitem__)
    pair = labelled.named([name for name in written if name != text], labelled.PAIRS)
    return {"text": text, "labels": sets} | ({"text_pair": pair} if pair else {})


def _are_sets(values: Sequence[Any]) -> bool:
    """Lists of few short labels, which occur again, some rows with several of them."""
    try:
        found = [labels(value) for value in values]
    except Flaw:
        return False
    counted = Counter(label for each in found for label in each)
    several = any(len(each) > 1 for each in found)
    again = sum(times > 1 for times in counted.values()) > len(counted) // 2
    return several and again and len(counted) <= _MOST and max(map(len, counted)) <= _LONG


def recipe_text(found: Sets, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB", "labels": found.labels}
    about = messages.text("init.multilabelled", **described, each=f"{found.each:.1f}")
    return starter.text(about, "multi_label_classification", found, path, found.context, _TRAIN)
