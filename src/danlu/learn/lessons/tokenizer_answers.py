"""Our answers to the exercises of lesson 4."""

from itertools import pairwise


def pair_counts(
    words: dict[tuple[str, ...], int],
) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for symbols, times in words.items():
        for pair in pairwise(symbols):
            counts[pair] = counts.get(pair, 0) + times
    return counts


def merged(
    symbols: tuple[str, ...], pair: tuple[str, str]
) -> tuple[str, ...]:
    out: list[str] = []
    at = 0
    while at < len(symbols):
        joined = symbols[at : at + 2] == pair
        out.append(symbols[at] + symbols[at + 1] if joined else symbols[at])
        at += 2 if joined else 1
    return tuple(out)


def encode(word: str, learned: list[tuple[str, str]]) -> tuple[str, ...]:
    symbols = tuple(word)
    for pair in learned:
        symbols = merged(symbols, pair)
    return symbols


_LEARNED = [("l", "o"), ("lo", "w"), ("e", "s"), ("es", "t")]
CASES = {
    "pair_counts": [
        ({("l", "o", "w"): 5, ("l", "o"): 2},),
        ({("a", "a", "a"): 2},),
    ],
    "merged": [
        (("l", "o", "w", "e", "r"), ("l", "o")),
        (("a", "a", "a"), ("a", "a")),
        (("x", "l", "o", "l", "o"), ("l", "o")),
    ],
    "encode": [
        ("lowest", _LEARNED),
        ("slow", _LEARNED),
        ("oats", _LEARNED),
    ],
}
