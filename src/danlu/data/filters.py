"""Cleaning of single rows: `normalize` mends a text, every `drop_*` says why it should go, or None.

A step is named in the recipe by its function's name; a new filter is one function here.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from danlu.data import shapes
from danlu.errors import UserError

Filter = Callable[[str], str | None]

DEDUP = "dedup"  # stands among the steps, and is done over all rows together
NORMALIZE = "normalize"
AUTO: dict[str, tuple[str, ...]] = {
    "code": ("drop_empty", "drop_short", "drop_garbled", "drop_long_lines", "dedup"),
    **{shape: shapes.of(shape).CLEAN for shape in shapes.names()},
}

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_NEWLINES = re.compile("\r\n|\r|\x85|\u2028|\u2029")
_GARBLED = re.compile("\ufffd|锟斤拷|烫烫烫|屯屯屯|[ÃÂ][\x80-\xbf]|â€|ï»¿|æ[\x80-\xbf]|ä¸|å[\x80-\xbf]")
_WORDS = re.compile(r"[\w\s]+")
_GENERATED = re.compile(r"@generated|auto-?generated|do not (edit|modify)", re.IGNORECASE)


def normalize(text: str) -> str:
    """Composed characters (NFC), newlines as \\n, control characters gone."""
    return unicodedata.normalize("NFC", _CONTROL.sub("", _NEWLINES.sub("\n", text)))


def drop_empty(text: str) -> str | None:
    """Nothing but white space."""
    return None if text.strip() else "empty"


def drop_short(text: str) -> str | None:
    """Less than 32 bytes of UTF-8: six English words, or ten Chinese characters."""
    return "short" if len(text) < 32 and len(text.strip().encode("utf-8")) < 32 else None


def drop_garbled(text: str) -> str | None:
    """More than one character in 200 is a replacement sign or bytes read in the wrong encoding."""
    return "garbled" if sum(1 for _ in _GARBLED.finditer(text)) > len(text) / 200 else None


def drop_symbols(text: str) -> str | None:
    """More signs than letters, digits and spaces."""
    return "symbols" if 2 * len(_WORDS.sub("", text)) > len(text) else None


def drop_repetitive(text: str) -> str | None:
    """Half of it in lines that occur again, or so regular that it compresses to a tenth."""
    lines = [line for line in text.split("\n") if line.strip()]
    counts = Counter(lines)
    if len(lines) >= 8 and 2 * sum(len(line) * (count - 1) for line, count in counts.items()) > len(text):
        return "repeated_lines"
    data = text.encode("utf-8")
    return "repeated_phrases" if len(data) >= 512 and 10 * len(zlib.compress(data, 1)) < len(data) else None


def drop_long_lines(text: str) -> str | None:
    """Code that no person wrote: minified, generated, or data with a file ending of code."""
    lines = text.split("\n")
    if max(map(len, lines)) > 5000 or len(text) > 200 * len(lines):
        return "long_lines"
    return "generated" if _GENERATED.search("\n".join(lines[:5])) else None


FILTERS: dict[str, Filter] = {
    function.__name__: function
    for function in (drop_empty, drop_short, drop_garbled, drop_symbols, drop_repetitive, drop_long_lines)
}
STEPS = (NORMALIZE, *FILTERS, DEDUP)


def plan(clean: str | Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Steps for each kind of row: each shape, and code; `normalize` is never done to code.

    Raises:
        UserError: E211, a step that does not exist.
    """
    if isinstance(clean, str):
        return AUTO
    unknown = [step for step in clean if step not in STEPS]
    if unknown:
        raise UserError("E211", step=unknown[0], valid=", ".join(STEPS))
    return {kind: [step for step in clean if kind != "code" or step != NORMALIZE] for kind in AUTO}


def verdict(text: str, steps: Sequence[str]) -> tuple[str, str] | None:
    """The first filter that refuses a text and its reason, or None."""
    for step in steps:
        if step in FILTERS and (reason := FILTERS[step](text)):
            return step, reason
    return None
