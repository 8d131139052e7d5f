"""The account of a cleaning: how many rows each step took, which, why, and what the copies looked like."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from danlu import files
from danlu.data.split import NAMES
from danlu.data.store import RowWriter

EXACT, NEAR = "exact_duplicates", "near_duplicates"
_TEXTS_PER_REASON = 1000
_HEAD = 2000  # characters of a text that is shown
_CLUSTERS = 200


@dataclass
class Funnel:
    """What came in, what each step took, what is left."""

    read: int = 0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    def report(self, steps: Sequence[str]) -> dict[str, Any]:
        """As it stands in funnel.json; steps in the order in which they were done."""
        kept, rows = self.read, []
        for step in steps:
            kept -= self.dropped[step]
            rows.append({"name": step, "dropped": self.dropped[step], "kept": kept})
        splits = {name: self.splits[name] for name in NAMES}
        return {"schema": 1, "read": self.read, "bytes": self.bytes, "steps": rows, "splits": splits}


class Dropped:
    """dropped.parquet (id, source, reason) and the texts of the first 1,000 rows of each reason."""

    def __init__(self, folder: Path):
        self._path = folder / "dropped_examples.jsonl"
        self._rows = RowWriter(folder, "dropped", ["id", "source", "reason"])
        self._shown: Counter[str] = Counter()
        self._texts: list[str] = []

    def add(self, row: Mapping[str, Any], reason: str) -> None:
        self._rows.add({"id": row["id"], "source": row["source"], "reason": reason})
        self._shown[reason] += 1
        if self._shown[reason] <= _TEXTS_PER_REASON:
            shown = {"id": row["id"], "source": row["source"], "reason": reason, "text": head(row["text"])}
            self._texts.append(json.dumps(shown, ensure_ascii=False) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()
        files.write_text(self._path, "".join(self._texts))


def head(text: str) -> str:
    """As much of a text as is shown."""
    return text[:_HEAD]


def largest(clusters: Sequence[list[str]]) -> list[list[str]]:
    """The clusters that are shown: the largest, at most 200."""
    return sorted(clusters, key=lambda cluster: (-len(cluster), cluster))[:_CLUSTERS]


def write_clusters(
    path: Path,
    clusters: Sequence[list[str]],
    pairs: Sequence[tuple[str, str, float]],
    heads: Mapping[str, dict[str, str]],
) -> None:
    """One line per cluster: its members, kept one first, each with its text's head and its likeness to the kept one.

    `jaccard` is null where a member joined through another one.
    """
    likeness = {(a, b): value for a, b, value in pairs}
    with_heads = (
        [{"id": name, **heads[name], "jaccard": likeness.get((cluster[0], name))} for name in cluster]
        for cluster in clusters
    )
    rows = ({"kept": members[0]["id"], "members": members} for members in with_heads)
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
