"""Raw files: which there are, and what each holds.

A file is known by the hash of its bytes; a row's id is that hash and the record's place in the file, so that rows
keep their ids wherever the files lie. Importing this module loads nothing heavy.
"""

import fnmatch
import hashlib
import itertools
import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from danlu.data import encodings
from danlu.errors import UserError
from danlu.messages import text

PACKED = (".gz", ".xz")
TEXT = (".txt", ".md", ".markdown", ".rst", ".text", ".label")
CODE = (
    ".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".java", ".go",
    ".rs", ".rb", ".php", ".swift", ".kt", ".scala", ".lua", ".pl", ".r", ".jl", ".sh", ".sql", ".hs", ".ml", ".ex",
    ".erl", ".clj", ".css", ".vue",
)  # fmt: skip
TABLES = {
    ".csv": "csv", ".data": "csv", ".test": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "json", ".parquet": "parquet",
    ".conll": "conll", ".bio": "conll", ".iob": "conll", ".bioes": "conll", ".bmes": "conll",
    ".annotated": "conll",
}  # fmt: skip
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ARCHIVES = (".tar", ".tgz", ".zip")
LISTS = "ImageSets"  # the folder of VOC's lists of pictures
CLASSES = (
    "codes.txt", "class_names.txt", "label_names.txt", "classes.txt", "labels.txt", "names.txt", "class_dict.csv",
)  # fmt: skip
IDX = "-ubyte"  # how the names of MNIST's files end
_MAGIC = "*?["
_SHOWN = 5  # files that a problem names


@dataclass(frozen=True)
class SourceFile:
    """One raw file, identified by its content."""

    path: Path
    name: str  # as it stands in messages and in the column `source`
    sha256: str
    format: str  # as the recipe names it (`data.format`), but never auto
    encoding: str  # as configured; "auto" is decided on first use
    copy: int = 0  # 1, 2, ... for further files of the very same bytes

    @property
    def code(self) -> bool:
        return self.format == "code"

    @cached_property
    def charset(self) -> str:
        return encodings.detect(self.path, self.name) if self.encoding == "auto" else self.encoding

    def row_id(self, index: int) -> str:
        return f"{self.sha256[:16]}{f'.{self.copy}' if self.copy else ''}-{index:08d}"

    def lines(self) -> Generator[tuple[int, str]]:
        """Numbered lines, decoded."""
        return encodings.lines(self.path, self.charset, self.name)


_USUAL = "text, code, csv, tsv, jsonl, json, parquet"  # kinds of files, in a message


def endings(shape: str) -> tuple[str, ...]:
    """How the names of files end that may hold rows of a shape."""
    rows = (*PICTURES, ".parquet", ".jsonl")
    seen = {"picture": (*PICTURES, *ARCHIVES, IDX, *TABLES), "boxed": (*rows, ".xml", ".json")}
    seen["masked"] = (*rows, *CLASSES)  # how files are called that say what the numbers in masks mean
    return seen.get(shape, (*TEXT, *CODE, *TABLES))


def discover(
    paths: Sequence[str], base: Path, exclude: Sequence[str] = (), also: Sequence[str] = (), shape: str = "auto"
) -> list[Path]:
    """The files that `paths` (files, folders, globs; relative to `base`) mean, sorted, each once.

    A folder gives its files that may hold rows of a shape, `also` those with other endings; names that begin with a
    dot or underscore-cache folders are passed over.

    Raises:
        UserError: E202 nothing at a path, E203 no file of a known kind there, E213 a file that cannot be read.
    """
    found: set[Path] = set()
    for path in paths:
        here = [
            root / name for root, name in _meant(path, base, (*endings(shape), *also)) if not _excluded(name, exclude)
        ]
        if not here:
            raise unread(base / Path(path).expanduser(), shape, path)
        found.update(here)
    for file in sorted(found):
        _readable(file)
    return sorted(found)


def unread(place: Path, shape: str = "auto", path: str | None = None) -> UserError:
    """What is wrong where no file is of a kind that holds rows of a shape."""
    own = endings(shape)
    kinds = _USUAL if own == endings("auto") else ", ".join(each.lstrip(".") for each in own)
    return UserError("E203", path=path or place, kinds=kinds, evidence=_others(place))


def beside(place: Path, known: Iterable[Path]) -> list[str]:
    """The names of a folder's other files than those."""
    there = {place / name for name in _walk(place)} if place.is_dir() else set()
    return sorted(file.relative_to(place).as_posix() for file in there - set(known))


def _readable(file: Path) -> None:
    """Raise E213 unless this is a file that may be read."""
    try:
        if file.is_file() and os.access(file, os.R_OK):
            return
        reason = "link" if file.is_symlink() and not file.exists() else "denied" if file.is_file() else "special"
    except OSError:
        reason = "denied"
    raise UserError("E213", path=file, name=file.name, reason=text(f"data.unreadable.{reason}"))


def describe(
    paths: Iterable[Path], *, format: str = "auto", encoding: str = "auto", limit_mb: float | None = None
) -> list[SourceFile]:
    """The files with their hashes and formats, in order of content hash, at most `limit_mb` MB of them.

    Raises:
        UserError: E223, each of them is larger than that.
    """
    paths = list(paths)
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    hashed = sorted((_sha256(path), path.relative_to(root).as_posix(), path) for path in paths)
    chosen, copies, left = [], dict[str, int](), (limit_mb or float("inf")) * 1e6
    for digest, name, path in hashed:
        size = path.stat().st_size
        if size > left:
            continue
        left -= size
        copies[digest] = copies.get(digest, -1) + 1
        kind = format_of(path) if format == "auto" else format
        chosen.append(SourceFile(path, name, digest, kind, encoding, copies[digest]))
    if limit_mb and paths and not chosen:
        smallest = min(path.stat().st_size for path in paths) / 1e6
        raise UserError("E223", limit=f"{limit_mb:g}", files=len(paths), size=f"{smallest:.3g}", fits=_above(smallest))
    return chosen


def _above(size: float) -> str:
    """A round number that is no less: 1.2345 -> 1.3."""
    return f"{math.ceil(size * 10) / 10:g}"


def hollow(found: Sequence[SourceFile]) -> UserError:
    """What is wrong where files hold no row."""
    sizes = [file.path.stat().st_size for file in found]
    shown = [f"{file.name}: {size:,} B, {file.format}" for file, size in zip(found, sizes, strict=True)]
    shown = [*shown[:_SHOWN], *["…"][: len(shown) > _SHOWN]]
    return UserError("E222", files=len(found), size=f"{sum(sizes):,}", evidence=shown)


def _others(place: Path) -> list[str]:
    """Some of the files of a folder, with their sizes."""
    there = [place / name for name in _walk(place)] if place.is_dir() else []
    shown = [f"{file.relative_to(place)}: {file.stat().st_size:,} B" for file in there[:_SHOWN] if file.is_file()]
    return [*shown, *["…"][: len(there) > _SHOWN]]


def format_of(path: Path) -> str:
    """The format that a file's name tells; plain text where it tells none."""
    suffix = _suffix(path)
    if suffix in PICTURES or suffix in ARCHIVES:
        return "picture" if suffix in PICTURES else "archive"
    if _ends(path, (IDX,)):
        return "idx"
    return "code" if suffix in CODE else TABLES.get(suffix, "text")


def _ends(path: Path, known: Sequence[str]) -> bool:
    """Whether a file's name, packed or not, ends like one of these."""
    name = path.with_suffix("").name if path.suffix in PACKED else path.name
    return name.lower().endswith(tuple(known))


def _meant(path: str, base: Path, known: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Where the search began and each file from there: folders above it are not matched by exclusions."""
    place = base / Path(path).expanduser()
    if place.is_file():
        yield place.parent, Path(place.name)
        if LISTS in place.parts and place.suffix == ".txt":
            yield from _listed(place)
    elif place.is_dir():
        yield from ((place, file) for file in _walk(place) if _ends(file, known))
    elif any(sign in path for sign in _MAGIC):
        root = Path(*itertools.takewhile(lambda part: not any(sign in part for sign in _MAGIC), place.parts))
        pattern = place.relative_to(root).as_posix()
        yield from ((root, file.relative_to(root)) for file in root.glob(pattern) if not file.is_dir())
    else:
        raise UserError("E202", path=path)


def _listed(path: Path) -> Iterator[tuple[Path, Path]]:
    """The pictures beside VOC's folder of lists that one of these names, a name in each line."""
    root = path.parents[path.parts[::-1].index(LISTS)]
    names = {line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()}
    yield from ((root, file) for file in _walk(root) if file.suffix.lower() in PICTURES and file.stem in names)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_closed):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        yield from (Path(parent, name).relative_to(folder) for name in sorted(names) if not name.startswith("."))


def _closed(error: OSError) -> None:
    """A folder that may not be looked into."""
    path = Path(error.filename)
    raise UserError("E213", path=path, name=path.name, reason=text("data.unreadable.denied")) from error


def _excluded(path: Path, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the path, its name, or a folder above it."""
    return any(fnmatch.fnmatch(part, pattern) for pattern in patterns for part in (path.as_posix(), *path.parts))


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix.lower()


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError("E202", path=path) from error
