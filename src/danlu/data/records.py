"""From files to clean rows: every record gets our columns, is mended, and passes the filters or carries a reason."""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from danlu import messages
from danlu.data import boxes, filters, formats, masks, pictures, shapes
from danlu.data.shapes import Flaw, Row, Shape
from danlu.data.sources import SourceFile
from danlu.errors import UserError, raise_all

if TYPE_CHECKING:
    from danlu.config import Data

BAD = "bad_records"
_TABLES = ("csv", "tsv", "jsonl", "json", "parquet")
_ROWS = ("jsonl", "parquet")  # those of them that may hold pictures
_SHOWN = 10  # flaws that a message lists
_TOLERATED = 0.05  # share of flawed records above which even "skip" fails
_LOOKED_AT = 20  # records that decide a file's shape


@dataclass
class Record:
    """One row on its way through the stage. `row` is None when the record could not be read."""

    id: str
    source: str
    row: Row | None
    step: str = ""  # the step that refuses it, and its reason; "" while it is kept
    reason: str = ""
    split: str = ""  # given already for derived rows
    before: str = ""  # its text before normalisation, where that changed it

    @property
    def text(self) -> str:
        return shapes.plain(self.row) if self.row else self.before


@dataclass
class Reader:
    """Reads files as rows of one shape."""

    cut: formats.Cut
    columns: Mapping[str, str]
    plan: Mapping[str, Sequence[str]]
    bad: str = "fail"
    wanted: str = "auto"  # the shape that the rows must have
    ignore: Sequence[str] = ()  # columns that are no part of them
    flaws: list[str] = field(default_factory=list)  # "place: reason" of the first few
    flawed: int = 0
    listed: frozenset[Path] = frozenset()  # pictures that tables name, masks, boxes: they are no rows of their own
    masks: Mapping[Path, Path] = field(default_factory=dict)  # picture -> its mask
    annotations: boxes.Annotations = field(default_factory=boxes.Annotations)  # what files say of pictures
    names: str = ""  # {number: what the class is called} of masks, in JSON
    void: int | None = None  # the number of a mask's pixels that are of no class
    read: int = 0

    @classmethod
    def of(cls, config: "Data") -> Self:
        """A reader as a recipe asks for it.

        Raises:
            UserError: E211, a cleaning step that does not exist; E221, columns to ignore where there
                is no table; E280, a number of pixels without a class where there is no mask.
        """
        if config.ignore and config.shape != "record":
            raise UserError("E221", shape=config.shape)
        if config.void is not None and config.shape != "masked":
            raise UserError("E280", shape=config.shape)
        cut = formats.Cut(config.record, config.section, config.header, config.pattern)
        made = cls(cut, config.columns, filters.plan(config.clean), config.bad_records, config.shape, config.ignore)
        made.void = config.void
        return made

    def shape(self, files: Sequence[SourceFile]) -> Shape:
        """The one shape of all files.

        Raises:
            UserError: E201 a file has none of the columns we know, E214 texts and chats are mixed; E220, a key that
                none of them is read by.
        """
        formats.check(self.cut, files)
        found: dict[Shape, SourceFile] = {}
        problems: list[UserError] = []
        if self.wanted == "picture" and any(file.format in _TABLES for file in files):
            self.listed = frozenset(file.path.resolve() for file in files if file.format == "picture")
        if self.wanted == "masked":
            self.masks = masks.pairs(file.path for file in files)
            paths = [file.path for file in files]
            self.names = json.dumps(masks.names(paths), ensure_ascii=False)
            self.listed = frozenset(path.resolve() for path in (*self.masks.values(), *masks.naming(paths)))
        if self.wanted == "boxed":
            told = [file.path for file in files if file.format != "picture" and file.format not in _ROWS]
            self.annotations, self.listed = boxes.read(told), frozenset(path.resolve() for path in told)
        for file in (each for each in files if each.path.resolve() not in self.listed):
            try:
                found.setdefault(self._shape_of_file(file), file)
            except UserError as problem:
                problems.append(problem)
                if problem.code == "E220":  # the same of every picture
                    break
        raise_all(problems)
        if "text" in found and len(found) > 1:
            other = next(shape for shape in found if shape != "text")
            raise UserError("E214", text=found["text"].name, rows=found[other].name)
        return "chat" if "chat" in found else next(iter(found), "text")

    def records(self, file: SourceFile, shape: Shape) -> Iterator[Record]:
        """The file's records, cleaned; flawed ones are counted and carry their reason."""
        if file.path.resolve() in self.listed:
            return
        for index, (line, raw) in enumerate(formats.read(file, self.cut)):
            self.read += 1
            place = f"{file.name}:{line}" if line != "" else file.name
            try:
                named = self._named(raw)
                if shape == "picture" and file.format in _TABLES:
                    named = pictures.fetched(named, file.path.parent, self.listed)
                if shape == "masked":
                    named = masks.joined(named, self.masks.get(file.path)) if file.format == "picture" else named
                    named |= {"void": self.void, "names": named.get("names") or self.names}
                if shape == "boxed" and file.format == "picture":
                    named["boxes"] = self.annotations.of(file.path)
                row = shapes.canonical(named, shape)
                yield cleaned(Record(file.row_id(index), place, row), self.plan["code" if file.code else shape])
            except Flaw as flaw:
                yield self._quarantined(Record(file.row_id(index), place, None, before=_printable(raw)), flaw)

    def check(self) -> None:
        """Refuse the flawed records that the recipe does not tolerate.

        Raises:
            UserError: E208 one flawed record, E209 several, or more than 5 % of all.
        """
        if not self.flawed or (self.bad == "skip" and self.flawed <= _TOLERATED * self.read):
            return
        if self.flawed == 1:
            place, _, reason = self.flaws[0].partition(": ")
            raise UserError("E208", where=place, reason=reason)
        where = self.flaws[0].partition(": ")[0]
        raise UserError("E209", where=where, evidence=self.flaws, bad=self.flawed, read=self.read)

    def _quarantined(self, record: Record, flaw: Flaw) -> Record:
        self.flawed += 1
        if len(self.flaws) < _SHOWN:
            self.flaws.append(f"{record.source}: {messages.text(f'data.flaw.{flaw.key}', **flaw.fields)}")
        record.step, record.reason = BAD, flaw.key
        return record

    def _shape_of_file(self, file: SourceFile) -> Shape:
        if file.format in ("text", "code") and self.wanted in ("auto", "text"):
            return "text"
        if self.wanted in ("masked", "boxed") and file.format == "picture":  # the rest stands in another file
            if self.columns:
                raise UserError("E220", key="columns", path=file.name, found=file.format, kinds=", ".join(_ROWS))
            return self.wanted
        seen = [raw for _, raw in islice(formats.read(file, self.cut), _LOOKED_AT) if isinstance(raw, dict)]
        if self.wanted != "auto":
            return self._as_wanted(file, seen)
        shaped = [shape for raw in seen if (shape := self._shape_of_record(raw))]
        if not shaped and seen:
            raise missing_column(file, seen[0], self.columns)
        return max(sorted(set(shaped)), key=shaped.count, default="text")

    def _as_wanted(self, file: SourceFile, seen: Sequence[Row]) -> Shape:
        """The shape that the rows must have, where a file has its columns."""
        shape = self.wanted
        if not seen or self._held(seen[0], shape) or (shape == "chat" and self._shape_of_record(seen[0])):
            return shape
        needed = {ours: ours for ours in shapes.of(shape).COLUMNS} | dict(self.columns)
        raise missing_column(
            file, seen[0], self.columns, next(ours for ours, yours in needed.items() if yours not in seen[0])
        )

    def _held(self, raw: Row, shape: Shape) -> bool:
        """Whether a record has the columns of the shape, in whatever form."""
        try:
            return shapes.holds(shapes.renamed(raw, self.columns), shape)
        except Flaw:
            return False

    def _named(self, raw: Any) -> Row:
        """A record under our names, without what is ignored."""
        if isinstance(raw, Flaw):
            raise raw
        if absent := [name for name in self.ignore if name not in raw]:
            raise Flaw("column", column=absent[0], found=", ".join(raw))
        renamed = shapes.renamed(raw, self.columns)
        return {name: value for name, value in renamed.items() if name not in self.ignore}

    def _shape_of_record(self, raw: Row) -> Shape | None:
        try:
            return shapes.shape_of(shapes.renamed(raw, self.columns))
        except Flaw:
            return None


def cleaned(record: Record, steps: Sequence[str]) -> Record:
    """The record normalised (where that is a step) and judged by the filters."""
    assert record.row is not None
    if filters.NORMALIZE in steps:
        before = record.text
        record.row = shapes.mapped(record.row, filters.normalize)
        record.before = before if record.text != before else ""
    refused = filters.verdict(record.text, steps)
    record.step, record.reason = refused or ("", "")
    return record


def digest(record: Record) -> str:
    """sha256 of the record's canonical content, in hex."""
    assert record.row is not None
    return hashlib.sha256(shapes.content(record.row).encode("utf-8")).hexdigest()


def group(record: Record) -> str:
    """sha256 of what it shares with the rows that it must stay with, in hex; nothing where it may stand alone."""
    assert record.row is not None
    shared = shapes.group(record.row)
    return hashlib.sha256(shared.encode("utf-8")).hexdigest() if shared else ""


def missing_column(file: SourceFile, row: Row, columns: Mapping[str, str], absent: str = "") -> UserError:
    """E201 with the columns that there are, a sample, and the likeliest one as the fix."""
    absent = absent or next((ours for ours, yours in columns.items() if yours not in row), "text")
    best = _likeliest(row, absent, columns)
    evidence = [
        messages.text("data.found", names=", ".join(map(str, row))),
        *(f"  {name} = {_shown(value)}" for name, value in islice(row.items(), 6)),
    ]
    return UserError(
        "E201", evidence=evidence, path=file.name, column=columns.get(absent, absent), ours=absent, best=best
    )


def _likeliest(row: Row, absent: str, columns: Mapping[str, str]) -> str:
    """The column that is meant: of those that nothing else is, the one of a like name, else of the longest text."""
    taken = {yours for ours, yours in columns.items() if ours != absent}
    free = [name for name in row if name not in taken]
    near = difflib.get_close_matches(columns.get(absent, absent), free, n=1)
    if near or absent in free:
        return near[0] if near else absent
    texts = {name: len(row[name]) for name in free if isinstance(row[name], str)}
    return max(texts, key=lambda name: texts[name], default=free[-1] if free else "...")


def _shown(value: Any) -> str:
    return f"{len(value):,} B" if isinstance(value, bytes) else repr(str(value)[:60])


def _printable(raw: Any) -> str:
    if isinstance(raw, dict):  # bytes of a picture say nothing
        raw = {name: f"{len(value)} B" if isinstance(value, bytes) else value for name, value in raw.items()}
    return str(raw).encode("utf-8", "backslashreplace").decode("utf-8")
