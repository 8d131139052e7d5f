"""The words of raw text: runs of letters and digits, every other sign, every character of a script without spaces."""

import re
from collections.abc import Iterable

from danlu.modalities.modality import Word

_UNSPACED = (  # Han, kana, Thai, Lao, Myanmar, Khmer
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065f\u0900-\u0903\u093a-\u094f\u200d"  # joined to a letter
_WORD = re.compile(rf"(?:[^\W{_UNSPACED}]|(?<=[\w{_MARKS}])[{_MARKS}])+|[^\s]")

Span = tuple[int, int]


def words(text: str) -> list[Span]:
    """Where each word begins and ends, in characters."""
    return [match.span() for match in _WORD.finditer(text)]


def units(text: str, tokens: list[Span]) -> list[tuple[int, int, int]]:
    """Words as tokens can tell them apart: (begin, end, its first token). Words that share a token are one.

    `tokens` are the characters that each token stands for, in order; words that no token stands for are left out.
    """
    spans, found, place = words(text), list[tuple[int, int, int]](), 0
    for index, (start, end) in enumerate(tokens):
        while start < end and text[start].isspace():
            start += 1
        while place < len(spans) and spans[place][1] <= start:
            place += 1
        if start >= end or place == len(spans):
            continue
        last = place
        while last + 1 < len(spans) and spans[last + 1][0] < end:
            last += 1
        if found and spans[place][0] < found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], spans[last][1]), found[-1][2]
        else:
            found.append((spans[place][0], spans[last][1], index))
    return found


def merged(tokens: Iterable[tuple[bytes, bool, str | None]]) -> list[Word]:
    """Words of tokens: (bytes, whether it goes on with the word before it, its name where it is a control token).

    White space alone is no word: it belongs to the next one.
    """
    found = list[tuple[bytes, list[int], bool]]()
    for place, (piece, goes_on, name) in enumerate(tokens):
        if name is None and found and not found[-1][2] and (goes_on or not found[-1][0].strip()):
            found[-1] = (found[-1][0] + piece, [*found[-1][1], place], False)
        else:
            found.append((piece if name is None else name.encode(), [place], name is not None))
    return [Word(piece.decode(errors="replace"), tuple(places), fixed) for piece, places, fixed in found]
