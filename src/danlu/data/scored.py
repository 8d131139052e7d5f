"""Raw files that hold texts, or pairs of them, with a number: found by looking, and the recipe that learns it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.data import labelled, sources, starter
from danlu.data.shapes.value import Row
from danlu.data.starter import Found
from danlu.data.tables import are_numbers

SCORES = ("score", "similarity", "relatedness", "value", "rating", "stars", "label", "target", "分数", "相似度", "评分")
_TRAIN = (("epochs", "8.0"), ("optimizer", '"adamw"'), ("lr", "1e-3"), ("dropout", "0.3"))


def look(path: Path) -> Found | None:
    """Texts with numbers at a file or folder; None where there are none.

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
            named = {ours: yours for ours, yours in columns.items() if ours != yours}
            return Found(files, {**keys, **({"columns": named} if named else {})}, count)
    return None


def _columns(rows: Sequence[Row]) -> dict[str, str] | None:
    """Ours -> yours for text, score and, where there are two texts, text_pair; None where the rows are no such."""
    columns = {str(name): [row.get(name) for row in rows] for name in rows[0]}
    numbers = [name for name, values in columns.items() if are_numbers(values)]
    score = labelled.named(numbers, SCORES)
    written = [name for name, values in columns.items() if name not in numbers and labelled.is_text(values)]
    if not score or not written:
        return None
    lengths = {name: sum(len(str(value)) for value in columns[name]) for name in written}
    text = labelled.named(written, labelled.TEXTS) or max(lengths, key=lengths.__getitem__)
    pair = labelled.named([name for name in written if name != text], labelled.PAIRS)
    return {"text": text, "score": score} | ({"text_pair": pair} if pair else {})


def recipe_text(found: Found, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB"}
    kind = "scored_pairs" if "text_pair" in _named(found.keys) else "scored"
    about = messages.text(f"init.{kind}", **described)
    return starter.text(about, "text_regression", found, path, _context(found), _TRAIN)


def _named(keys: Mapping[str, Any]) -> Mapping[str, str]:
    named: Mapping[str, str] = keys.get("columns", {})
    return named


def _context(found: Found) -> int:
    (source,) = sources.describe([found.files["train"]])
    rows, _ = labelled.records_of(source, found.keys)
    names = [_named(found.keys).get(name, name) for name in ("text", "text_pair")]
    return starter.context(sum(starter.tokens(str(row.get(name, ""))) for name in names) for row in rows)
