"""Raw files that hold texts and what is named in them: columns of words and tags, or lists and spans in JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from danlu import messages
from danlu.data import formats, shapes, sources, starter
from danlu.data.shapes import Flaw, Row, tagged
from danlu.data.sources import SourceFile
from danlu.errors import UserError
from danlu.metrics.entities import is_tag

_NAMES = {
    "tokens": ("tokens", "words"), "tags": ("tags", "ner_tags", "labels", "ner"),
    "text": ("text", "sentence", "content"), "spans": ("spans", "entities", "label", "labels", "annotations"),
}  # fmt: skip
_READ = 50_000  # records read
_LINES = 2000  # lines of a file of columns that are looked at
_ALIKE = 0.98  # share of the lines that must be of one form
# What did better than the usual settings on Chinese resumes.
_TRAIN = (
    ("epochs", "20.0"), ("optimizer", '"adamw"'), ("lr", "1e-3"), ("dropout", "0.2"), ("select", '"last"'),
)  # fmt: skip


@dataclass(frozen=True)
class Tagged(starter.Found):
    """How to read rows of texts and entities."""

    kinds: Mapping[str, int]  # how often each type occurs
    context: int  # tokens that all but a few of the texts need


def look(path: Path) -> Tagged | None:
    """Tagged rows at a file or folder; None where there are none.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    files = starter.by_split(sources.discover([str(path)], Path(path.anchor)))
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    for keys in _ways(source):
        rows = [row for row in _rows(source, keys) if row]
        kinds = [named for row in rows for *_, named in row["spans"]]
        if kinds:
            counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
            context = starter.context(starter.tokens(row["text"]) for row in rows)
            return Tagged(files, keys, len(rows), counts, context)
    return None


def _ways(source: SourceFile) -> Iterator[dict[str, Any]]:
    """The ways in which the file may be read."""
    if source.format == "conll":
        yield {}
    elif source.format == "text" and _is_columns(source):
        yield {"format": "conll"}
    elif source.format in ("json", "jsonl", "parquet"):
        first = next((raw for _, raw in _read(source, {}) if isinstance(raw, dict)), {})
        for form in (tagged.WORDS, tagged.COLUMNS):
            found = {ours: next((name for name in _NAMES[ours] if name in first), None) for ours in form}
            if all(found.values()):
                columns = {ours: yours for ours, yours in found.items() if ours != yours}
                yield {"columns": columns} if columns else {}


def _is_columns(source: SourceFile) -> bool:
    """Whether the lines that are not blank end with a tag, and some name something."""
    lines = [line.split() for _, line in islice(source.lines(), _LINES) if line.strip()]
    tags = [fields[-1] for fields in lines if len(fields) > 1 and is_tag(fields[-1])]
    return bool(tags) and len(tags) >= _ALIKE * len(lines) and any(tag != "O" for tag in tags)


def _read(source: SourceFile, keys: Mapping[str, Any]) -> Iterator[formats.Item]:
    kind = keys.get("format", source.format)
    file = SourceFile(source.path, source.name, source.sha256, kind, source.encoding)
    try:
        yield from islice(formats.read(file, formats.Cut()), _READ)
    except UserError:
        return


def _rows(source: SourceFile, keys: Mapping[str, Any]) -> list[Row | None]:
    """Records as rows of ours, None for those that are none; nothing where most are none."""
    rows = [_row(raw, keys.get("columns", {})) for _, raw in _read(source, keys)]
    return rows if rows and fmean(row is not None for row in rows) > 0.5 else []


def _row(raw: Any, columns: Mapping[str, str]) -> Row | None:
    try:
        return None if isinstance(raw, Flaw) else shapes.canonical(shapes.renamed(raw, columns), "tagged")
    except Flaw:
        return None


def recipe_text(found: Tagged, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    kinds: Sequence[str] = list(found.kinds)
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB", "kinds": ", ".join(kinds[:8])}
    return starter.text(
        messages.text("init.tagged", **described, entities=f"{sum(found.kinds.values()):,}"),
        "token_classification", found, path, found.context, _TRAIN,
    )  # fmt: skip
