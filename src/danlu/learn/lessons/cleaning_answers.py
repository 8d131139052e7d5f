"""Our answers to the exercises of lesson 3."""

import re


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {
        tuple(words[i : i + size]) for i in range(len(words) - size + 1)
    }


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def chance(similarity: float, bands: int, rows: int) -> float:
    return 1 - (1 - similarity**rows) ** bands


def keep(texts: list[str]) -> list[int]:
    seen: set[str] = set()
    kept = []
    for number, text in enumerate(texts):
        squeezed = " ".join(text.split())
        if squeezed not in seen:
            seen.add(squeezed)
            kept.append(number)
    return kept


CASES = {
    "shingles": [
        ("The cat sat; the CAT slept.", 2),
        ("one two three", 3),
        ("one two", 3),
    ],
    "jaccard": [
        ({"a", "b", "c"}, {"b", "c", "d"}),
        ({"a"}, {"b"}),
        ({"a", "b"}, {"a", "b"}),
    ],
    "chance": [(0.8, 20, 5), (0.2, 20, 5), (0.5, 1, 1)],
    "keep": [(["a b", "c", "a  b\n", "c", "d"],), (["x", "X"],)],
}
