"""From the bytes of a file to its raw records, each with the line where it begins.

A record that cannot be read is a Flaw in its place. Plain text has no records of its own: a file of code is one,
prose is cut into sections.
"""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from danlu.data import pictures
from danlu.data.encodings import LINE_LIMIT
from danlu.data.shapes import Flaw
from danlu.data.sources import SourceFile
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.metrics.entities import is_tag

Item = tuple[int | str, dict[str, Any] | Flaw]  # line (or row) number, or a name within the file; record
_TABS: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}  # a quote in a .tsv is one of its text
_SENTENCE = re.compile(r'(?P<id>\d+)\s+"?(?P<text>.*?)"?')
ANSWERS = ".ans"  # how the names of files end that hold the answers to MCTest's questions
_ASKED = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
_LONGEST = 4  # sections: text without a blank line is cut at a line's end once it is this many times too long


@dataclass(frozen=True)
class Cut:
    """How plain text becomes records."""

    record: str = "auto"  # auto file section line
    section: int = 4000  # characters
    header: bool = True  # whether the first line of a table names its columns; else they are "1", "2", ...
    pattern: str | None = None  # whose named groups are the columns of a line of plain text


def check(cut: Cut, files: Sequence[SourceFile]) -> None:
    """Raise UserError E220 for a key of [data] that none of the files would be read by."""
    readers = {"header": (not cut.header, ("csv", "tsv")), "pattern": (cut.pattern, ("text", "code"))}
    for key, (given, kinds) in readers.items():
        if given and files and not any(file.format in kinds for file in files):
            raise UserError("E220", key=key, path=files[0].name, found=files[0].format, kinds=", ".join(kinds))


def read(file: SourceFile, cut: Cut) -> Iterator[Item]:
    """All records of a file, in order.

    Raises:
        UserError: the file as a whole cannot be read (damaged, undecodable, no header).
    """
    return _READERS[file.format](file, cut)


def _text(file: SourceFile, cut: Cut) -> Iterator[Item]:
    if cut.pattern:
        return _matched(file, re.compile(cut.pattern))
    record = cut.record if cut.record != "auto" else "file" if file.code else "section"
    if record == "file":
        return iter([(1, {"text": "".join(line for _, line in file.lines())})])
    if record == "line":
        return ((number, {"text": line.rstrip("\n")}) for number, line in file.lines() if line.strip())
    return _sections(file, cut.section)


def _matched(file: SourceFile, pattern: re.Pattern[str]) -> Iterator[Item]:
    """A record for each line that is not blank, by the groups of a pattern."""
    for number, line in file.lines():
        if line.strip():
            match = pattern.fullmatch(line.rstrip("\r\n"))
            yield number, match.groupdict() if match else Flaw("pattern", found=line.strip()[:40])


def _sections(file: SourceFile, size: int) -> Iterator[Item]:
    """Cut at the first blank line after `size` characters, or at a line's end when none comes."""
    held: list[str] = []
    start, length = 1, 0
    for number, line in file.lines():
        blank = not line.strip()
        if length and ((length >= size and blank) or length + len(line) > _LONGEST * size):
            yield start, {"text": "".join(held).strip("\n")}
            held, length = [], 0
        if blank and not length:
            continue
        start = start if length else number
        held.append(line)
        length += len(line)
    if length:
        yield start, {"text": "".join(held).strip("\n")}


def _jsonl(file: SourceFile, cut: Cut) -> Iterator[Item]:
    return ((number, _parsed(line)) for number, line in file.lines() if line.strip())


def _parsed(line: str) -> dict[str, Any] | Flaw:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return Flaw("json", reason=because(error), column=error.colno)
    except RecursionError:
        return Flaw("deep")
    return value if isinstance(value, dict) else Flaw("object", found=type(value).__name__)


def _json(file: SourceFile, cut: Cut) -> Iterator[Item]:
    """The objects of one array (read whole), or of a file that holds JSON lines after all."""
    text = "".join(line for _, line in file.lines()) if file.path.stat().st_size else ""
    if not text.lstrip().startswith("["):
        yield from _jsonl(file, cut)
        return
    decoder, place, line = json.JSONDecoder(), text.index("[") + 1, 1
    seen = 0
    while (place := _skipped(text, place)) < len(text) and text[place] != "]":
        line, seen = line + text.count("\n", seen, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise UserError("E210", path=f"{file.name}:{error.lineno}", reason=because(error)) from error
        except RecursionError:
            raise UserError("E210", path=f"{file.name}:{line}", reason="too deep") from None
        yield line, value if isinstance(value, dict) else Flaw("object", found=type(value).__name__)
    if place >= len(text):
        raise UserError("E210", path=f"{file.name}:{text.count(chr(10)) + 1}", reason="]")


def _skipped(text: str, place: int) -> int:
    """The place of the next character that is no space and no comma."""
    while place < len(text) and text[place] in " \t\n,":
        place += 1
    return place


def _csv(file: SourceFile, cut: Cut) -> Iterator[Item]:
    csv.field_size_limit(LINE_LIMIT)
    numbered = file.lines()
    start, first = next(((number, line) for number, line in numbered if line.strip()), (1, ""))
    form: dict[str, Any] = {"delimiter": delimiter_of(first)} if file.format == "csv" else _TABS
    (written,) = list(csv.reader([first], **form)) or [[]]
    header = [name.strip() for name in written]
    if not cut.header:
        lines = itertools.chain([first], (line for _, line in numbered))
        names = [str(index) for index in range(1, len(header) + 1)]
        return _table(csv.reader(lines, **form, strict=True), names, start)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError("E212", where=f"{file.name}:{start}", column=repeated[0])
    return _table(csv.reader((line for _, line in numbered), **form, strict=True), header, start + 1)


def _table(rows: Any, header: list[str], start: int) -> Iterator[Item]:
    """The rows that a csv reader gives, the first of which stands in line `start`."""
    while True:
        number = start + rows.line_num
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, Flaw("csv", reason=str(error))
            continue
        if len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
        elif values:
            yield number, Flaw("fields", found=len(values), wanted=len(header))


def delimiter_of(header: str) -> str:
    """The delimiter that occurs most in a header line; a comma when none does."""
    return max(",;\t|", key=header.count)


def _conll(file: SourceFile, cut: Cut) -> Iterator[Item]:
    """A word and its tag in each line, the first and the last of its columns; sentences are apart by blank lines."""
    held: list[tuple[int, list[str]]] = []
    for number, line in itertools.chain(file.lines(), [(0, "")]):
        if fields := _fields(line):
            held.append((number, fields))
        elif held:
            yield _sentence(held)
            held = []


def _semeval(file: SourceFile, cut: Cut) -> Iterator[Item]:
    """Blocks of lines as SemEval-2010 task 8 writes them: number and "sentence", relation, comment."""
    held: list[tuple[int, str]] = []
    for number, line in itertools.chain(file.lines(), [(0, "")]):
        if line.strip():
            held.append((number, line.strip()))
        elif held:
            yield held[0][0], _related([each for _, each in held])
            held = []


def _related(lines: Sequence[str]) -> dict[str, Any] | Flaw:
    sentence = _SENTENCE.fullmatch(lines[0])
    if not sentence or len(lines) < 2 or lines[1].startswith("Comment"):
        return Flaw("related_lines", found=lines[0][:40])
    return {"text": sentence["text"], "label": lines[1]}


def _fields(line: str) -> list[str]:
    """The columns of a line, by tabs or else by spaces; none of a blank line, a comment, or a document's beginning."""
    if not line.strip() or line.startswith("-DOCSTART-"):
        return []
    fields = line.rstrip("\r\n").split("\t") if "\t" in line.strip() else line.split()
    return [] if line.startswith("# ") and not is_tag(fields[-1]) else fields


def _squad(file: SourceFile, cut: Cut) -> Iterator[Item]:
    """The questions of a file as SQuAD writes it: articles of paragraphs of questions; or CMRC's list of paragraphs."""
    try:
        whole = json.loads("".join(line for _, line in file.lines()))
        articles = whole["data"] if isinstance(whole, dict) else [{"paragraphs": whole}]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        asked = [(_either(each, "context"), question) for each in paragraphs for question in each["qas"]]
        found = [{**question, "context": context, "question": _either(question, "query", "question")}
                 for context, question in asked]  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError("E210", path=file.name, reason=because(error)) from error
    yield from enumerate(found, 1)


def _mctest(file: SourceFile, cut: Cut) -> Iterator[Item]:
    """The questions of a file as MCTest writes it: a story in a line, with four questions of four candidates each.

    The letters of the right ones stand in the same line of a file with the ending .ans beside it, which is to be named
    too, so that the rows are known by both.
    """
    if file.path.suffix == ANSWERS:
        return
    letters = [line.split() for line in _answers(file).read_text("utf-8").splitlines() if line.strip()]
    for place, (number, line) in enumerate(each for each in file.lines() if each[1].strip()):
        fields = line.rstrip("\r\n").replace("\\newline", "\n").split("\t")
        right = letters[place] if place < len(letters) else []
        if len(fields) != 3 + 5 * len(right):
            yield number, Flaw("fields", found=len(fields), wanted=3 + 5 * len(right))
            continue
        for index, letter in enumerate(right):
            asked, *choices = fields[3 + 5 * index : 8 + 5 * index]
            asked = asked.removeprefix("one: ").removeprefix("multiple: ")
            yield number, {"text": f"{fields[2]}\n{asked}", "choices": choices, "label": letter}


def _answers(file: SourceFile) -> Path:
    beside = file.path.with_suffix(ANSWERS)
    if not beside.is_file():
        raise UserError("E202", path=beside)
    return beside


def _copa(file: SourceFile, cut: Cut) -> Iterator[Item]:
    """The items of a file as COPA writes it (XML): what happened, and which of two is its cause or its result."""
    try:
        items = ElementTree.fromstring("".join(line for _, line in file.lines())).findall("item")
        found = [_item(item) for item in items]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise UserError("E210", path=file.name, reason=because(error)) from error
    yield from enumerate(found, 1)


def _item(item: ElementTree.Element) -> dict[str, Any]:
    said = [item.findtext(name) or "" for name in ("p", "a1", "a2")]
    right = int(item.attrib["most-plausible-alternative"]) - 1
    return {"text": f"{said[0]} {_ASKED[item.attrib['asks-for']]}", "choices": said[1:], "label": str(right)}


def _either(row: Any, *names: str) -> Any:
    """What stands under a name, or under CMRC's longer one."""
    known = [key for name in names for key in (name, f"{name}_text")]
    return next((row[key] for key in known if key in row), None)


def _sentence(held: Sequence[tuple[int, list[str]]]) -> Item:
    broken = next(((number, fields) for number, fields in held if len(fields) < 2 or not is_tag(fields[-1])), None)
    if broken:
        return broken[0], Flaw("tag_line", found=" ".join(broken[1])[:40])
    return held[0][0], {"tokens": [fields[0] for _, fields in held], "tags": [fields[-1] for _, fields in held]}


def _parquet(file: SourceFile, cut: Cut) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(file.path).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError("E210", path=file.name, reason=str(error).splitlines()[0]) from error


def _pictures(file: SourceFile, cut: Cut) -> Iterator[Item]:
    yield from getattr(pictures, file.format)(file)


_READERS: dict[str, Callable[[SourceFile, Cut], Iterator[Item]]] = {
    "text": _text, "code": _text, "csv": _csv, "tsv": _csv, "jsonl": _jsonl, "json": _json, "parquet": _parquet,
    "conll": _conll, "semeval": _semeval, "squad": _squad, "copa": _copa, "mctest": _mctest,
    "picture": _pictures, "archive": _pictures, "idx": _pictures,
}  # fmt: skip
