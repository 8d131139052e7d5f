"""Raw files that hold texts and their classes: how to read them, found by looking, and the recipe that learns them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from danlu import messages
from danlu.data import formats, sources, starter
from danlu.data.shapes import Row
from danlu.data.sources import SourceFile
from danlu.errors import UserError

LABELS = ("label", "labels", "class", "category", "sentiment", "polarity", "stars", "rating", "topic", "intent",
          "target", "标签", "类别", "情感")  # fmt: skip
TEXTS = ("text", "sentence", "sentence1", "premise", "review", "content", "title", "question", "question1", "文本",
         "内容", "评论", "标题")  # fmt: skip
PAIRS = ("text_pair", "sentence2", "hypothesis", "question2")
PATTERNS = (  # of lines that are no tables: fastText's, and a label before a colon as TREC writes it
    r"__label__(?P<label>\S+)\s+(?P<text>.*)",
    r"(?P<label>[A-Z]+)(?::\w+)?\s(?P<text>.*)",
)
_NUMBER = re.compile(r"\s*[-+]?[\d.,]+(e[-+]?\d+)?\s*", re.IGNORECASE)
_READ, _SAMPLE = 50_000, 4000  # records read, and looked at: every so many of them, for classes may stand in blocks
_CLASSES = 200  # at most
_ALIKE = 0.98  # share of the lines that must be of one form
# What did better than the usual settings on sst2 (0.757, not 0.727 right) and on trec's six classes (0.82, not 0.79).
_TRAIN = (("epochs", "8.0"), ("optimizer", '"adamw"'), ("lr", "1e-3"), ("dropout", "0.3"))


@dataclass(frozen=True)
class Labelled(starter.Found):
    """How to read rows of texts and classes."""

    classes: Mapping[str, int]  # how often each occurs among the rows looked at
    context: int  # tokens that all but a few of the texts need


def look(path: Path) -> Labelled | None:
    """Labelled rows at a file or folder; None where there are none.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    files = starter.by_split(sources.discover([str(path)], Path(path.anchor)))
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    for keys in ways(source):
        rows, count = records_of(source, keys)
        if rows and (columns := _columns(rows)):
            return _found(files, keys, columns, rows, count)
    return None


def _found(
    files: Mapping[str, Path], keys: Mapping[str, Any], columns: dict[str, str], rows: list[Row], count: int
) -> Labelled:
    named = {ours: yours for ours, yours in columns.items() if ours != yours}
    classes = Counter(str(row[columns["label"]]) for row in rows)
    lengths = (sum(starter.tokens(str(row[columns[each]])) for each in columns if each != "label") for row in rows)
    return Labelled(files, {**keys, **({"columns": named} if named else {})}, count, classes, starter.context(lengths))


# --- rows -----------------------------------------------------------------------------------------------


def ways(source: SourceFile) -> Iterator[dict[str, Any]]:
    """The ways in which the file may be read, the likelier first."""
    if source.format in ("csv", "tsv"):
        yield {} if _has_header(source) else {"header": False}
    elif source.format in ("text", "code"):
        lines = [line.rstrip("\r\n") for _, line in islice(source.lines(), _SAMPLE) if line.strip()]
        for pattern in PATTERNS:
            if lines and fmean(re.fullmatch(pattern, line) is not None for line in lines) >= _ALIKE:
                yield {"pattern": pattern}
        tabs = Counter(line.count("\t") for line in lines).most_common(1)
        if tabs and tabs[0][0] and tabs[0][1] >= _ALIKE * len(lines):
            table = SourceFile(source.path, source.name, source.sha256, "tsv", source.encoding)
            yield {"format": "tsv"} | ({} if _has_header(table) else {"header": False})
    else:
        yield {}


def _has_header(source: SourceFile) -> bool:
    """Whether the first line names the columns: what it holds does not occur again in its column."""
    rows = [[str(value) for value in row.values()] for row in records_of(source, {"header": False})[0]]
    columns = list(zip_longest(*rows[1:], fillvalue=""))
    return not rows or not any(name in column for name, column in zip(rows[0], columns, strict=False) if name.strip())


def records_of(source: SourceFile, keys: Mapping[str, Any]) -> tuple[list[Row], int]:
    """Records that can be read, the first among them, and of how many."""
    cut = formats.Cut(header=keys.get("header", True), pattern=keys.get("pattern"))
    kind = keys.get("format", source.format)
    file = SourceFile(source.path, source.name, source.sha256, kind, source.encoding)
    try:
        found = [raw for _, raw in islice(formats.read(file, cut), _READ) if isinstance(raw, dict)]
    except UserError:
        return [], 0
    return found[:: -(-len(found) // _SAMPLE) or 1], len(found)


# --- columns --------------------------------------------------------------------------------------------


def _columns(rows: Sequence[Row]) -> dict[str, str] | None:
    """Ours -> yours for text, label and, where there are two texts, text_pair; None where the rows are no such."""
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    plain = {
        name: values for name, values in columns.items() if all(isinstance(v, str | int | float | None) for v in values)
    }
    labels = [name for name, values in plain.items() if _names_classes(values)]
    label = named(labels, LABELS) or (labels[-1] if _only_numbers(labels) else "")
    lengths = {name: fmean(len(str(value)) for value in values) for name, values in plain.items() if is_text(values)}
    lengths.pop(label, None)
    if not label or not lengths:
        return None
    text = named(list(lengths), TEXTS) or max(lengths, key=lengths.__getitem__)
    pair = named([name for name in lengths if name != text], PAIRS)
    return {"text": text, "label": label} | ({"text_pair": pair} if pair else {})


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _only_numbers(names: Sequence[str]) -> bool:
    """Whether there is one column that can be the classes, or the columns have no names that could tell."""
    return bool(names) and all(name.isdigit() for name in names)


def named(names: Sequence[str], known: Sequence[str]) -> str:
    lower = {name.lower().strip(): name for name in names}
    return next((lower[name] for name in known if name in lower), "")


def _names_classes(values: Sequence[Any]) -> bool:
    """Few values, short and each often there."""
    found = Counter(str(value).strip() for value in values)
    return 2 <= len(found) <= min(_CLASSES, max(2, len(values) // 5)) and max(map(len, found)) <= 40 and "" not in found


def is_text(values: Sequence[Any]) -> bool:
    """Mostly different strings, which are no numbers."""
    strings = [value for value in values if isinstance(value, str) and not _NUMBER.fullmatch(value)]
    return len(strings) > len(values) // 2 and len(set(strings)) > len(strings) // 2


# --- the recipe -----------------------------------------------------------------------------------------


def recipe_text(found: Labelled, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB", "classes": len(found.classes)}
    most, times = max(found.classes.items(), key=lambda each: each[1])
    share = f"{times / sum(found.classes.values()):.0%}"
    about = messages.text("init.labelled", **described, most=most, share=share)
    return starter.text(about, "text_classification", found, path, found.context, _TRAIN)
