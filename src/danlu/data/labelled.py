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
from danlu.data import formats, sources
from danlu.data.shapes import Row
from danlu.data.sources import SourceFile
from danlu.data.starter import commented, quoted
from danlu.errors import UserError

SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "dev", "validation", "development"),
    "test": ("test",),
}
LABELS = ("label", "labels", "class", "category", "sentiment", "polarity", "stars", "rating", "topic", "intent",
          "target", "标签", "类别", "情感")  # fmt: skip
TEXTS = ("text", "sentence", "sentence1", "premise", "review", "content", "title", "question", "question1", "文本",
         "内容", "评论", "标题")  # fmt: skip
PAIRS = ("text_pair", "sentence2", "hypothesis", "question2")
PATTERNS = (  # of lines that are no tables: fastText's, and a label before a colon as TREC writes it
    r"__label__(?P<label>\S+)\s+(?P<text>.*)",
    r"(?P<label>[A-Z]+)(?::\w+)?\s(?P<text>.*)",
)
_READ, _SAMPLE = 50_000, 4000  # records read, and looked at: every so many of them, for classes may stand in blocks
_CLASSES = 200  # at most
_ALIKE = 0.98  # share of the lines that must be of one form
_CONTEXTS = (32, 64, 128, 256, 512)
# What did better than the usual settings on sst2 (0.757, not 0.727 right) and on trec's six classes (0.82, not 0.79).
_TRAIN = (("epochs", "8.0"), ("optimizer", '"adamw"'), ("lr", "1e-3"), ("dropout", "0.3"))


@dataclass(frozen=True)
class Labelled:
    """How to read rows of texts and classes."""

    files: Mapping[str, Path]  # by split; "train" is always there
    keys: Mapping[str, Any]  # of [data], beside the paths
    classes: Mapping[str, int]  # how often each occurs among the rows looked at
    context: int  # tokens that all but a few of the texts need
    count: int  # of rows to learn from, 50,000 at most

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


def look(path: Path) -> Labelled | None:
    """Labelled rows at a file or folder; None where there are none.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    files = _by_split(sources.discover([str(path)], Path(path.anchor)))
    if "train" not in files:
        return None
    (source,) = sources.describe([files["train"]])
    for keys in _ways(source):
        rows, count = _rows(source, keys)
        if rows and (columns := _columns(rows)):
            return _found(files, keys, columns, rows, count)
    return None


def _found(
    files: Mapping[str, Path], keys: Mapping[str, Any], columns: dict[str, str], rows: list[Row], count: int
) -> Labelled:
    named = {ours: yours for ours, yours in columns.items() if ours != yours}
    classes = Counter(str(row[columns["label"]]) for row in rows)
    needed = sorted(sum(_tokens(str(row[columns[each]])) for each in columns if each != "label") for row in rows)
    most = needed[int(0.99 * (len(needed) - 1))] + 3
    context = next((size for size in _CONTEXTS if size >= most), _CONTEXTS[-1])
    return Labelled(files, {**keys, **({"columns": named} if named else {})}, classes, context, count)


def _tokens(text: str) -> int:
    """About how many tokens a text has: one for each character without case (Chinese), one for four others."""
    unspaced = sum(ord(char) >= 0x2E80 for char in text)
    return unspaced + (len(text) - unspaced) // 4 + 1


# --- files ----------------------------------------------------------------------------------------------


def _by_split(found: Sequence[Path]) -> dict[str, Path]:
    """The file of each split, by its name. A single file is to train on; so are validation files where no other is."""
    named: dict[str, list[Path]] = {}
    for path in found:
        words = re.split(r"[^a-z]+", path.name.lower())
        named.setdefault(next((split for split, known in SPLITS.items() if set(known) & set(words)), ""), []).append(
            path
        )
    if len(found) == 1:
        return {"train": found[0]}
    if any(len(paths) > 1 for split, paths in named.items() if split):
        return {}
    files = {split: paths[0] for split, paths in named.items() if split}
    if "train" not in files and {"valid", "test"} <= files.keys():
        files = {"train": files["valid"], "test": files["test"]}
    return files


# --- rows -----------------------------------------------------------------------------------------------


def _ways(source: SourceFile) -> Iterator[dict[str, Any]]:
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
    rows = [[str(value) for value in row.values()] for row in _rows(source, {"header": False})[0]]
    columns = list(zip_longest(*rows[1:], fillvalue=""))
    return not rows or not any(name in column for name, column in zip(rows[0], columns, strict=False) if name.strip())


def _rows(source: SourceFile, keys: Mapping[str, Any]) -> tuple[list[Row], int]:
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
    label = _named(labels, LABELS) or (labels[-1] if _only_numbers(labels) else "")
    lengths = {name: fmean(len(str(value)) for value in values) for name, values in plain.items() if _is_text(values)}
    lengths.pop(label, None)
    if not label or not lengths:
        return None
    text = _named(list(lengths), TEXTS) or max(lengths, key=lengths.__getitem__)
    pair = _named([name for name in lengths if name != text], PAIRS)
    return {"text": text, "label": label} | ({"text_pair": pair} if pair else {})


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _only_numbers(names: Sequence[str]) -> bool:
    """Whether there is one column that can be the classes, or the columns have no names that could tell."""
    return bool(names) and all(name.isdigit() for name in names)


def _named(names: Sequence[str], known: Sequence[str]) -> str:
    lower = {name.lower().strip(): name for name in names}
    return next((lower[name] for name in known if name in lower), "")


def _names_classes(values: Sequence[Any]) -> bool:
    """Few values, short and each often there."""
    found = Counter(str(value).strip() for value in values)
    return 2 <= len(found) <= min(_CLASSES, max(2, len(values) // 5)) and max(map(len, found)) <= 40 and "" not in found


def _is_text(values: Sequence[Any]) -> bool:
    """Mostly different strings."""
    strings = [value for value in values if isinstance(value, str)]
    return len(strings) > len(values) // 2 and len(set(strings)) > len(strings) // 2


# --- the recipe -----------------------------------------------------------------------------------------


def recipe_text(found: Labelled, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    described = {"rows": f"{found.count:,}", "size": f"{found.bytes / 1e6:.2f} MB", "classes": len(found.classes)}
    most, times = max(found.classes.items(), key=lambda each: each[1])
    share = f"{times / sum(found.classes.values()):.0%}"
    lines = [f"# {messages.text('init.labelled', **described, most=most, share=share)}"]
    lines += [f"# {messages.text('init.run')}", "", 'task = "text_classification"', "", "[data]"]
    lines += [*_paths(found, path), *_keys(found)]
    lines += ["", "[model]", commented("depth", '"auto"', "depth"), commented("context", str(found.context), "context")]
    return "\n".join([*lines, "", "[train]", *(commented(key, value, key) for key, value in _TRAIN)]) + "\n"


def _paths(found: Labelled, path: Path) -> Iterator[str]:
    folder = path if len(found.files) > 1 and not any(sign in path.name for sign in "*?[") else path.parent
    for split, file in sorted(found.files.items(), key=lambda each: ("train", "valid", "test").index(each[0])):
        key = "path" if split == "train" else split
        yield commented(key, quoted((folder / file.name).as_posix()), split)


def _keys(found: Labelled) -> Iterator[str]:
    for key, value in found.keys.items():
        if key == "columns":
            inner = ", ".join(f"{ours} = {quoted(yours)}" for ours, yours in value.items())
            yield commented(key, f"{{ {inner} }}", "columns")
        else:
            yield commented(key, str(value).lower() if isinstance(value, bool) else quoted(value), key)
    shares = {"valid": 0.1, "test": 0.1} if "test" not in found.files else {"valid": 0.05, "test": 0.0}
    if "valid" not in found.files:
        yield commented("split", f"{{ valid = {shares['valid']}, test = {shares['test']} }}", "split")
