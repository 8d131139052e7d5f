"""Which rows are held out: decided by a hash of their content, the same for every seed and machine."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

NAMES = ("train", "valid", "test")
_SALT = b"danlu split 1\0"


def position(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(_SALT + text.encode("utf-8")).digest()[:8], "big") / 2**64


def keys(rows: Sequence[tuple[str, str]], most: float) -> list[str]:
    """What decides on each row of (group, own content): its group, where it has one that `most` rows at most share."""
    shared = Counter(group for group, _ in rows)
    return [group if group and shared[group] <= most else own for group, own in rows]


def split_at(place: float, shares: Mapping[str, float]) -> str:
    """The split at a position: the lowest go to test, the next to valid, the rest ({"valid": 0.05, ...}) to train."""
    if place < shares.get("test", 0):
        return "test"
    return "valid" if place < shares.get("test", 0) + shares.get("valid", 0) else "train"


def assign(places: Sequence[float], shares: Mapping[str, float]) -> list[str]:
    """The split of each position. A share above 0 gets at least one row wherever there are more rows than splits."""
    splits = [split_at(place, shares) for place in places]
    wanted = [name for name in ("test", "valid") if shares.get(name, 0) > 0]
    if len(places) <= len(wanted):
        return splits
    order = sorted(range(len(places)), key=lambda row: (places[row], row))
    for name in ("train", *wanted):
        _fill(splits, name, order if name != "train" else order[::-1])
    return splits


def _fill(splits: list[str], name: str, order: Sequence[int]) -> None:
    """Give an empty split the first row, in order, that its own split can spare."""
    if name not in splits:
        splits[next(row for row in order if splits.count(splits[row]) > 1)] = name
