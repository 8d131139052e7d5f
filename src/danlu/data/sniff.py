"""What a file or folder holds, found by looking, and the short recipe that trains on it."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.data import clues, formats, records, shapes, sources
from danlu.data.shapes import Row, Shape
from danlu.data.sources import SourceFile
from danlu.data.starter import commented, is_note, quoted, without_notes

TASK = "language_modeling"  # that is learned from what nothing else is known of
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_PAIRS = {
    "prompt": ("prompt", "question", "query", "input", "instruction", "问题", "提问", "问", "输入"),
    "completion": ("completion", "answer", "response", "output", "reply", "target", "回答", "答案", "答", "输出"),
}
_FILES = 8  # largest files whose records are looked at
_SAMPLE = 200  # records looked at per file
_FEW = 5_000_000  # bytes of chats that a short training sees several times
_COUNTED = 64 * 2**20  # bytes that are counted row by row; beyond, the count is extrapolated


@dataclass(frozen=True)
class Sniffed:
    """What was found."""

    files: int
    bytes: int
    rows: int  # exact up to 64 MB, then an estimate
    format: str  # of the most bytes
    encoding: str
    shape: Shape
    columns: tuple[str, ...]  # of the first record
    mapping: dict[str, str]  # ours -> yours, where the names differ
    chinese: float  # share of Chinese characters among letters
    header: bool  # whether the first line of a table names its columns
    code: bool
    exclude: tuple[str, ...]  # files of another kind, left out
    sample: str  # the beginning of the first row
    suggestions: tuple[str, ...] = ()


def sniff(path: Path) -> Sniffed:
    """Look at a file or folder.

    Raises:
        UserError: E202 nothing there, E203 no file of a kind we read, or only a README, E222 no row in them, E201 rows
            without text, or what reading raises.
    """
    path = path.resolve()
    there = sources.discover([str(path)], Path(path.anchor))
    strange = sources.beside(path, there)
    if strange and all(map(is_note, there)):
        raise sources.unread(path)
    found, about = sources.describe(there), {*there} - {*without_notes(there)}
    chosen, others = _dominant([file for file in found if file.path not in about])
    largest = sorted(chosen, key=lambda file: -file.path.stat().st_size)[:_FILES]
    first = _first_records(largest[0])
    mapping = _mapping(largest[0], first)
    shape = records.Reader(_cut(largest[0]), mapping, {}).shape(chosen)
    texts = _texts((row for file in largest for row in _first_records(file)), mapping, shape)
    if not texts:
        raise sources.hollow(chosen)
    charset = "" if largest[0].format == "parquet" else largest[0].charset
    return Sniffed(
        files=len(chosen),
        bytes=_size(chosen),
        rows=_count(chosen),
        format=largest[0].format,
        encoding=charset,
        shape=shape,
        columns=tuple(first[0]),
        mapping=mapping,
        chinese=_chinese("".join(texts)),
        header=_cut(largest[0]).header,
        code=largest[0].code,
        exclude=_names_outside(found, chosen),
        sample="def " if largest[0].path.suffix == ".py" else _beginning(texts[0]),
        suggestions=tuple(_suggestions(chosen, others, strange)),
    )


def recipe_text(sniffed: Sniffed, path: Path) -> str:
    """A short commented recipe for what was found at `path`, as the recipe shall name it; it runs as it stands."""
    lines = [f"# {messages.text('init.head', **_described(sniffed))}"]
    lines += [f"# {line}" for line in (messages.text("init.run"), *sniffed.suggestions)]
    lines += ["", f'task = "{TASK}"', "", "[data]", f"path = {quoted(path.as_posix())}"]
    lines += _data_keys(sniffed)
    lines += ["", "[model]", commented("depth", '"auto"', "depth")]
    return "\n".join(lines + (_text_keys(sniffed) if sniffed.shape == "text" else _answer_keys(sniffed))) + "\n"


# --- looking ------------------------------------------------------------------------------------------


def _dominant(found: Sequence[SourceFile]) -> tuple[list[SourceFile], list[SourceFile]]:
    """The files of the kind with the most bytes, and the others."""
    kinds = {file: _kind(file) for file in found}
    sizes: Counter[Any] = Counter()
    for file, kind in kinds.items():
        sizes[kind] += file.path.stat().st_size
    ((first, _),) = sizes.most_common(1)
    return [file for file in found if kinds[file] == first], [file for file in found if kinds[file] != first]


def _kind(file: SourceFile) -> Shape | tuple[str, ...]:
    """What can be read together: texts, chats with pairs, or tables of the same columns that we do not know."""
    if file.format in ("text", "code"):
        return "text"
    row = next((raw for _, raw in formats.read(file, _cut(file)) if isinstance(raw, dict)), {})
    shape = shapes.shape_of(row)
    return "chat" if shape == "pair" else shape or tuple(row)


def _names_outside(found: Sequence[SourceFile], chosen: Sequence[SourceFile]) -> tuple[str, ...]:
    """Names that leave out all files but the chosen ones."""
    names = {file.path.name for file in chosen}
    return tuple(sorted({file.path.name for file in found} - names))


@cache
def _cut(file: SourceFile) -> formats.Cut:
    return formats.Cut(header=file.format not in ("csv", "tsv") or clues.has_header(file))


def _first_records(file: SourceFile) -> list[Row]:
    return [raw for _, raw in islice(formats.read(file, _cut(file)), _SAMPLE) if isinstance(raw, dict)]


def _mapping(file: SourceFile, rows: Sequence[Row]) -> dict[str, str]:
    """Columns for rows without names that we know: a question and an answer, else the column with the longest texts."""
    if not rows or shapes.shape_of(rows[0]):
        return {}
    names = {name.lower().strip(): name for name in rows[0]}
    pair = {ours: names[yours] for ours, known in _PAIRS.items() for yours in known[::-1] if yours in names}
    if len(pair) == 2:
        return pair
    lengths = {name: sum(len(row[name]) for row in rows if isinstance(row.get(name), str)) for name in rows[0]}
    longest = max(lengths, key=lambda name: lengths[name], default="")
    if 10 * lengths.get(longest, 0) < sum(len(str(row)) for row in rows):
        raise records.missing_column(file, rows[0], {})
    return {"text": longest}


def _texts(rows: Iterable[Row], mapping: dict[str, str], shape: Shape) -> list[str]:
    texts = []
    for row in rows:
        try:
            texts.append(shapes.plain(shapes.canonical(shapes.renamed(row, mapping), shape)))
        except shapes.Flaw:  # counted and reported when the rows are prepared
            continue
    return [text for text in texts if text.strip()]


def _chinese(text: str) -> float:
    """Share of Chinese characters among the letters of a text."""
    return len(_HAN.findall(text)) / max(1, sum(map(str.isalpha, text)))


def _size(files: Iterable[SourceFile]) -> int:
    return sum(file.path.stat().st_size for file in files)


def _count(files: Sequence[SourceFile]) -> int:
    """Rows of all files; after 64 MB the rest is estimated from what was counted."""
    rows = counted = 0
    for file in files:
        rows += sum(1 for _ in formats.read(file, _cut(file)))
        counted += file.path.stat().st_size
        if counted > _COUNTED:
            break
    return round(rows * _size(files) / max(counted, 1))


def _beginning(text: str) -> str:
    """The first words of a text: a prompt to watch while training."""
    line = next(line.strip() for line in text.splitlines() if line.strip())
    return line[:12] if _HAN.search(line) else line[:40].rsplit(" ", 1)[0] if len(line) > 40 else line


def _suggestions(chosen: Sequence[SourceFile], others: Sequence[SourceFile], strange: Sequence[str]) -> Iterable[str]:
    if strange:
        yield messages.text("init.strange", n=len(strange), first=strange[0])
    if others:
        yield messages.text("init.left_out", n=len(others), first=others[0].name)
    copies = sum(file.copy > 0 for file in chosen)
    if copies:
        yield messages.text("init.copies", n=copies)
    if _size(chosen) < 100_000:
        yield messages.text("init.small")


# --- writing ------------------------------------------------------------------------------------------


def _described(sniffed: Sniffed) -> dict[str, Any]:
    return {
        "files": sniffed.files,
        "size": f"{sniffed.bytes / 1e6:.2f} MB",
        "rows": f"{sniffed.rows:,}",
        "format": sniffed.format,
        "encoding": sniffed.encoding or "-",
        "shape": messages.text(f"init.shape.{'code' if sniffed.code else sniffed.shape}"),
        "chinese": f"{sniffed.chinese:.0%}",
    }


def _data_keys(sniffed: Sniffed) -> list[str]:
    keys = [] if sniffed.header else [commented("header", "false", "header")]
    if sniffed.mapping:
        inner = ", ".join(f"{ours} = {quoted(yours)}" for ours, yours in sniffed.mapping.items())
        keys.append(commented("columns", f"{{ {inner} }}", "columns"))
    if sniffed.exclude:
        keys.append(commented("exclude", f"[{', '.join(map(quoted, sniffed.exclude))}]", "exclude"))
    return [*keys, commented("split", "{ valid = 0.05, test = 0.05 }", "split")]


def _text_keys(sniffed: Sniffed) -> list[str]:
    return [
        commented("context", "256", "context"),
        *("", "[pretrain]", commented("budget", '"5min"', "budget")),
        commented("sample", quoted(sniffed.sample), "sample"),
    ]


def _answer_keys(sniffed: Sniffed) -> list[str]:
    """The rows are read as text first, then the answers are learned, a few times over where that does not take long.

    Most of the falling of the rate is left to the answers (Hu et al. 2024, arXiv:2404.06395).
    """
    length = ("epochs", "3.0") if sniffed.bytes < _FEW else ("budget", '"6min"')
    return [
        commented("context", "256", "context"),
        *("", "[pretrain]", commented("budget", '"3min"', "budget"), commented("decay", "0.06", "decay")),
        *("", "[finetune]", commented("derive", '"same_rows"', "answers"), commented(*length, length[0])),
    ]
