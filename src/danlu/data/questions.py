"""Raw files that hold questions about texts: SQuAD's and CMRC's JSON, or a record for each question."""

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

_READ = 50_000  # records read
# Few questions are learned by heart long before they are understood: a base model helps more than any of these.
_TRAIN = (("epochs", "8.0"), ("optimizer", '"adamw"'), ("lr", "5e-4"), ("dropout", "0.2"))


@dataclass(frozen=True)
class Questions(starter.Found):
    """How to read questions about texts."""

    texts: int  # that they are about
    context: int  # tokens that all but a few of the texts need, with their question


def look(path: Path) -> Questions | None:
    """Questions at a file or folder; None where there are none.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    files = starter.by_split(sources.discover([str(path)], Path(path.anchor)))
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    if source.format not in ("json", "jsonl", "parquet"):
        return None
    for keys in ({"format": "squad"}, {}) if source.format == "json" else ({},):
        rows = [row for raw in _read(source, keys) if (row := _row(raw))]
        if rows:
            lengths = {row["context"]: starter.tokens(shapes.plain(row)) for row in rows}
            return Questions(files, keys, len(rows), len(lengths), starter.context(lengths.values()))
    return None


def _read(source: SourceFile, keys: Mapping[str, Any]) -> Iterator[Any]:
    file = SourceFile(source.path, source.name, source.sha256, keys.get("format", source.format), source.encoding)
    try:
        yield from (raw for _, raw in islice(formats.read(file, formats.Cut()), _READ))
    except UserError:
        return


def _row(raw: Any) -> Row | None:
    try:
        held = isinstance(raw, dict) and shapes.holds(raw, "question")
        return shapes.canonical(raw, "question") if held else None
    except Flaw:
        return None


def recipe_text(found: Questions, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB", "texts": f"{found.texts:,}"}
    about = messages.text("init.questions", **described)
    return starter.text(about, "reading_comprehension", found, path, found.context, _TRAIN)
