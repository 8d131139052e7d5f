"""What records tell about their task: the ways in which a file may be read, and which of its columns hold what."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from statistics import fmean
from typing import Any

from danlu.data import formats
from danlu.data.shapes import Row
from danlu.data.sources import SourceFile
from danlu.errors import UserError

Columns = Mapping[str, Sequence[Any]]  # the values of each

TEXTS = ("text", "sentence", "sentence1", "premise", "review", "content", "title", "question", "question1", "文本",
         "内容", "评论", "标题")  # fmt: skip
PAIRS = ("text_pair", "sentence2", "hypothesis", "question2")
PATTERNS = (  # of lines that are no tables: fastText's, and a label before a colon as TREC writes it
    r"__label__(?P<label>\S+)\s+(?P<text>.*)",
    r"(?P<label>[A-Z]+)(?::\w+)?\s(?P<text>.*)",
)
CLASSES = 20  # different whole numbers up to which they are classes
_NUMBER = re.compile(r"\s*[-+]?[\d.,]+(e[-+]?\d+)?\s*", re.IGNORECASE)
_READ, _SAMPLE = 50_000, 4000  # records read, and looked at: every so many of them, for classes may stand in blocks
_NAME = 60  # characters of a column's name, at most
_ALIKE = 0.98  # share of the lines that must be of one form


@dataclass(frozen=True)
class Texts:
    """Rows of texts, or pairs of them, with something about them."""

    keys: dict[str, Any]  # of [data]
    rows: list[Row]  # those looked at, in our columns
    count: int  # of those read

    @property
    def written(self) -> Iterator[str]:
        """All text of each row."""
        return (" ".join(str(row[name]) for name in ("text", "text_pair") if name in row) for row in self.rows)


# --- rows -----------------------------------------------------------------------------------------------


def records(source: SourceFile, keys: Mapping[str, Any], most: int = _READ) -> list[Any]:
    """The first raw records, a Flaw in the place of one that cannot be read; none where the file cannot be."""
    cut = formats.Cut(header=keys.get("header", True), pattern=keys.get("pattern"))
    file = replace(source, format=keys.get("format", source.format))
    try:
        return [raw for _, raw in islice(formats.read(file, cut), most)]
    except UserError:
        return []


def rows(source: SourceFile, keys: Mapping[str, Any], most: int = _READ) -> list[Row]:
    """Those of the first records that can be read."""
    return [raw for raw in records(source, keys, most) if isinstance(raw, dict)]


def sample(found: Sequence[Row]) -> Sequence[Row]:
    """A few thousand of them, from all places."""
    return found[:: -(-len(found) // _SAMPLE) or 1]


def ways(source: SourceFile) -> Iterator[dict[str, Any]]:
    """The ways in which the file may be read, the likelier first."""
    if source.format in ("csv", "tsv"):
        yield {} if has_header(source) else {"header": False}
    elif source.format in ("text", "code"):
        lines = [line.rstrip("\r\n") for _, line in islice(source.lines(), _SAMPLE) if line.strip()]
        for pattern in PATTERNS:
            if lines and fmean(re.fullmatch(pattern, line) is not None for line in lines) >= _ALIKE:
                yield {"pattern": pattern}
        tabs = Counter(line.count("\t") for line in lines).most_common(1)
        if tabs and tabs[0][0] and tabs[0][1] >= _ALIKE * len(lines):
            yield {"format": "tsv"} | ({} if has_header(replace(source, format="tsv")) else {"header": False})
    else:
        yield {}


def has_header(source: SourceFile) -> bool:
    """Whether the first line names the columns: what it holds is short, and does not occur again in its column."""
    found = [[str(value) for value in row.values()] for row in sample(rows(source, {"header": False}))]
    columns = list(zip_longest(*found[1:], fillvalue=""))
    if not found or not found[0]:
        return True
    again = any(name in column for name, column in zip(found[0], columns, strict=False) if name.strip())
    return not again and max(map(len, found[0])) <= _NAME


# --- columns --------------------------------------------------------------------------------------------


def texts(source: SourceFile, ours: str, chosen: Callable[[Columns], str]) -> Texts | None:
    """Texts beside a column that is `ours`, which is `chosen` among all (""); None where there are none."""
    for keys in ways(source):
        found = rows(source, keys)
        looked = sample(found)
        if looked and (columns := _columns(looked, ours, chosen)):
            made = [{mine: row.get(yours) for mine, yours in columns.items()} for row in looked]
            return Texts({**keys, **renaming(columns)}, made, len(found))
    return None


def _columns(looked: Sequence[Row], ours: str, chosen: Callable[[Columns], str]) -> dict[str, str] | None:
    """Ours -> yours for text, what is beside it and, where there are two texts, text_pair."""
    columns = {str(name): [row.get(name) for row in looked] for name in looked[0]}
    about = chosen(columns)
    lengths = {name: sum(len(str(value)) for value in values) for name, values in columns.items()
               if name != about and is_text(values)}  # fmt: skip
    if not about or not lengths:
        return None
    text = named(lengths, TEXTS) or max(lengths, key=lengths.__getitem__)
    pair = named([name for name in lengths if name != text], PAIRS)
    return {"text": text, ours: about} | ({"text_pair": pair} if pair else {})


def renaming(columns: Mapping[str, str]) -> dict[str, Any]:
    """The key of [data] that gives columns (ours -> yours) the names that they need."""
    different = {ours: yours for ours, yours in columns.items() if ours != yours}
    return {"columns": different} if different else {}


def named(names: Iterable[str], known: Sequence[str]) -> str:
    """The one of the names that is known, the surest; else nothing."""
    lower = {name.lower().strip(): name for name in names}
    return next((lower[name] for name in known if name in lower), "")


def is_text(values: Sequence[Any]) -> bool:
    """Mostly different strings, which are no numbers."""
    strings = [value for value in values if isinstance(value, str) and not _NUMBER.fullmatch(value)]
    return len(strings) > len(values) // 2 and len(set(strings)) > len(strings) // 2


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether they are numbers that differ too much to be classes."""
    numbers = [number(value) for value in values if value is not None]
    known = {each for each in numbers if each is not None}
    if len(known) == 0 or None in numbers:
        return False
    return len(known) > CLASSES or not all(each.is_integer() for each in known)


def number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):  # TypeError: a list or an object
        return None


def shares(counts: Mapping[str, int]) -> dict[str, str]:
    """The most frequent and its share, for a message."""
    most, times = max(counts.items(), key=lambda each: each[1])
    return {"most": most, "share": f"{times / sum(counts.values()):.0%}"}
