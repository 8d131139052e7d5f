"""Which encoding a text file is in, decided from its bytes; a file of two encodings is refused by line."""

import codecs
import gzip
import io
import lzma
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from danlu.errors import UserError
from danlu.messages.reasons import because

LINE_LIMIT = 32 * 2**20  # characters; a longer line is refused
_BLOCK = 2**20
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError)


def open_bytes(path: Path) -> IO[bytes]:
    """A file's content, decompressed when its name ends in .gz or .xz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return lzma.open(path, "rb") if path.suffix == ".xz" else open(path, "rb")


def lines(path: Path, encoding: str, name: str) -> Generator[tuple[int, str]]:
    """Line number from 1 and line with its end as "\\n"; `name` is the file's name in messages.

    Raises:
        UserError: E205 a line that cannot be decoded, E207 a line above LINE_LIMIT, E210 a damaged file.
    """
    number = 0
    try:
        with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline=None) as file:
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                if len(line) > LINE_LIMIT:
                    raise UserError("E207", where=f"{name}:{number}", limit=f"{LINE_LIMIT >> 20} MB")
                yield number, line
    except UnicodeDecodeError as error:
        raise _undecodable(path, encoding, name, number + 1) from error
    except LookupError as error:
        raise UserError("E206", encoding=encoding) from error
    except DAMAGE as error:
        raise UserError("E210", path=name, reason=because(error)) from error


def detect(path: Path, name: str) -> str:
    """The encoding: utf-8, utf-8-sig, utf-16, utf-16-le, utf-16-be or gb18030.

    Raises:
        UserError: E205 two encodings in one file or none of these, E210 a damaged file.
    """
    try:
        with open_bytes(path) as file:
            head = file.read(_BLOCK)
            known = next((encoding for bom, encoding in _BOMS.items() if head.startswith(bom)), "") or _wide(head)
            if known:
                return known
            if _is_utf8(head, file):
                return "utf-8"
        return _by_lines(path, name)
    except DAMAGE as error:
        raise UserError("E210", path=name, reason=because(error)) from error


def _wide(head: bytes) -> str:
    """UTF-16 without a mark: in text of the western world every second byte is zero."""
    half = len(head[:4096]) // 2
    if half and head[1:4096:2].count(0) > 0.6 * half:
        return "utf-16-le"
    return "utf-16-be" if half and head[:4096:2].count(0) > 0.6 * half else ""


def _is_utf8(head: bytes, rest: IO[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        block = head
        while block:
            decoder.decode(block)
            block = rest.read(_BLOCK)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


@dataclass
class _Census:
    """Lines with other than ASCII bytes, by what they can be: how many, and the first of each."""

    utf8: int = 0
    gb18030: int = 0
    neither: int = 0
    first_utf8: int = 0
    first_gb18030: int = 0
    first_neither: int = 0

    def add(self, kind: str, number: int) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if not getattr(self, f"first_{kind}"):
            setattr(self, f"first_{kind}", number)


def _by_lines(path: Path, name: str) -> str:
    census = _Census()
    with open_bytes(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT), b""), 1):
            if not line.isascii() and (kind := _kind(line)):
                census.add(kind, number)
    if census.neither:
        raise _mixed(name, census.first_neither, "data.bytes.neither", path)
    if census.utf8 and census.utf8 >= census.gb18030:
        raise _mixed(name, census.first_gb18030, "data.bytes.gb_in_utf8", path)
    if census.utf8:
        raise _mixed(name, census.first_utf8, "data.bytes.utf8_in_gb", path)
    return "gb18030"


def _kind(line: bytes) -> str:
    """utf8, gb18030, neither; "" for a line so short that GB18030 text can be UTF-8 by accident."""
    try:
        text = line.decode("utf-8")
        return "utf8" if sum(char >= "\u0800" for char in text) >= 2 else ""
    except UnicodeDecodeError:
        pass
    try:
        return "gb18030" if _looks_chinese(line.decode("gb18030")) else "neither"
    except UnicodeDecodeError:
        return "neither"


def _looks_chinese(text: str) -> bool:
    """Whether most pairs have a high second byte; accented western letters are followed by plain ones."""
    foreign = [char.encode("gb18030") for char in text if char > "\x7f"]
    return 2 * sum(code[1] >= 0x80 for code in foreign) >= len(foreign)


def _mixed(name: str, number: int, reason: str, path: Path) -> UserError:
    from danlu import messages

    with open_bytes(path) as file:
        line = next(line for at, line in enumerate(file, 1) if at == number)
    return UserError("E205", where=f"{name}:{number}", evidence=[_legible(line)], reason=messages.text(reason))


def _legible(line: bytes) -> str:
    """The beginning of a line in whichever encoding reads it."""
    for encoding in ("utf-8", "gb18030"):
        with suppress(UnicodeDecodeError):
            return line.decode(encoding)[:80].rstrip()
    return line[:120].decode("utf-8", "replace").rstrip()


def _undecodable(path: Path, encoding: str, name: str, near: int) -> UserError:
    """The line that `encoding` cannot read; `near` when lines cannot be told apart (UTF-16)."""
    from danlu import messages

    reason = messages.text("data.bytes.not", encoding=encoding)
    if encoding.startswith("utf-16"):
        return UserError("E205", where=f"{name}:{near}", reason=reason)
    with open_bytes(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT), b""), 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return UserError("E205", where=f"{name}:{number}", evidence=[_legible(line)], reason=reason)
    return UserError("E205", where=name, reason=reason)
