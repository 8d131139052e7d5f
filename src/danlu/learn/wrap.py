"""Lines of a width, for text with and without spaces: Chinese may break after any character but before no comma."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

_WIDE = "\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_OPEN, _CLOSE = "（《〈「『【“‘", "，。、；：？！）》〉」』】”’…"
_PIECE = re.compile(f"\\s*[{_OPEN}]*(?:[{_WIDE}]|[^\\s{_WIDE}{_OPEN}{_CLOSE}]+|[^\\s])[{_CLOSE}]*\\s*")


def breaks(text: str, width: int) -> Iterator[int]:
    """Where lines end, so that each fits in `width` columns."""
    column = 0
    for piece in _PIECE.finditer(text):
        wide = cell_len(piece[0].rstrip())
        if column and column + wide > width:
            yield piece.start()
            column = 0
        column += cell_len(piece[0])


def wrapped(text: str, width: int) -> list[str]:
    """The lines of one paragraph."""
    ends = list(breaks(text, width))
    return [text[a:b].strip() for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
