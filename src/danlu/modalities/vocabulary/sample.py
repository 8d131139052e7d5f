"""An even, bounded sample of a stream of texts, and the vocabulary size that fits it."""

from collections.abc import Iterable, Iterator

import numpy as np

LIMIT = 12_000_000  # bytes a vocabulary is learned from: beyond that it hardly changes; time and memory stay bounded
PIECE = 16_384  # characters; a book of one line is sampled in pieces, not all or nothing


def pieces(texts: Iterable[str], size: int = PIECE) -> Iterator[str]:
    """The same texts, cut so that none is longer than `size` characters."""
    for text in texts:
        for start in range(0, len(text), size):
            yield text[start : start + size]


def thin(texts: Iterable[str], limit: int = LIMIT) -> list[str]:
    """Every k-th piece of the stream, k the smallest power of two that keeps them within `limit` bytes."""
    kept: list[str] = []
    sizes: list[int] = []
    total, stride = 0, 1
    for index, text in enumerate(pieces(texts)):
        if index % stride:
            continue
        kept.append(text)
        sizes.append(len(text.encode()))
        total += sizes[-1]
        while len(kept) > 1 and total > limit:
            kept, sizes, stride = kept[::2], sizes[::2], stride * 2
            total = sum(sizes)
    return kept


def characters(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Every distinct character with its count, most frequent first, equal counts by code point."""
    counts = np.zeros(0x110000, np.int64)
    for text in texts:
        found = np.bincount(np.frombuffer(text.encode("utf-32-le"), np.uint32))
        counts[: len(found)] += found
    codes = np.flatnonzero(counts)
    order = codes[np.argsort(-counts[codes], kind="stable")]
    return [(chr(code), int(counts[code])) for code in order]


def auto_size(texts: list[str], total_bytes: int) -> int:
    """A vocabulary for `total_bytes` of text like `texts`: grows with the square root, a multiple of 64.

    Scripts with many characters (Chinese) need one token for each of their common ones before any
    word: the distinct non-ASCII characters that cover 99.9 % of the text are added.
    """
    counted = [(char, count) for char, count in characters(texts) if not char.isascii()]
    whole = sum(map(len, texts))
    covered = np.cumsum([count for _, count in counted]) < sum(count for _, count in counted) - 0.001 * whole
    wanted = 256 + int(covered.sum()) + 2.4 * total_bytes**0.5
    return int(min(max(wanted, 512), 32_768)) // 64 * 64
