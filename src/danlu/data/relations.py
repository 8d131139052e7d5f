"""Raw files that hold texts with two marked things and their relation: SemEval's blocks, or a table or JSON of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.data import formats, shapes, sources, starter
from danlu.data.shapes import Flaw, Row
from danlu.data.sources import SourceFile
from danlu.errors import UserError

_TEXTS, _LABELS = ("text", "sentence"), ("label", "relation", "class")
_READ = 50_000  # records read
# What did better than the usual settings on SemEval-2010's task 8: 0.68 of its score half-way, where all of the text,
# and none of it hidden, had 0.52.
_TRAIN = (
    ("epochs", "12.0"), ("optimizer", '"adamw"'), ("lr", "1e-3"), ("dropout", "0.3"), ("select", '"last"'),
)  # fmt: skip
_OPTIONS = (("around", "4"), ("hide", "0.1"))


@dataclass(frozen=True)
class Related(starter.Found):
    """How to read rows of marked texts and relations."""

    labels: Mapping[str, int]  # how often each occurs
    context: int  # tokens that all but a few of the texts need


def look(path: Path) -> Related | None:
    """Marked rows at a file or folder; None where there are none.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    files = starter.by_split(sources.discover([str(path)], Path(path.anchor)))
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    for keys in _ways(source):
        rows = _rows(source, keys)
        if len({row["label"] for row in rows}) > 1:
            labels = Counter(row["label"] for row in rows)
            return Related(files, keys, len(rows), labels, starter.context(starter.tokens(row["text"]) for row in rows))
    return None


def _ways(source: SourceFile) -> Iterator[dict[str, Any]]:
    """The ways in which the file may be read."""
    if source.format == "text":
        yield {"format": "semeval"}
        return
    first = next((raw for _, raw in _read(source, {}) if isinstance(raw, dict)), {})
    found = {"text": _named(first, _TEXTS), "label": _named(first, _LABELS)}
    if all(found.values()):
        columns = {ours: yours for ours, yours in found.items() if ours != yours}
        yield {"columns": columns} if columns else {}


def _named(row: Row, known: tuple[str, ...]) -> str:
    return next((name for name in known if name in row), "")


def _read(source: SourceFile, keys: Mapping[str, Any]) -> Iterator[formats.Item]:
    file = SourceFile(source.path, source.name, source.sha256, keys.get("format", source.format), source.encoding)
    try:
        yield from islice(formats.read(file, formats.Cut()), _READ)
    except UserError:
        return


def _rows(source: SourceFile, keys: Mapping[str, Any]) -> list[Row]:
    """Records as rows of ours; none where the first few are none."""
    rows = []
    for index, (_, raw) in enumerate(_read(source, keys)):
        try:
            if not isinstance(raw, Flaw):
                rows.append(shapes.canonical(shapes.renamed(raw, keys.get("columns", {})), "marked"))
        except Flaw:
            pass
        if index == 20 and len(rows) < 10:
            return []
    return rows


def recipe_text(found: Related, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB", "labels": len(found.labels)}
    most, times = max(found.labels.items(), key=lambda each: each[1])
    about = messages.text("init.related", **described, most=most, share=f"{times / found.count:.0%}")
    written = starter.text(about, "relation_extraction", found, path, found.context, _TRAIN)
    return "\n".join([written, "[options]", *(starter.commented(key, value, key) for key, value in _OPTIONS)]) + "\n"
