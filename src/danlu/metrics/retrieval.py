"""How soon a search among all texts of rows comes upon the one that belongs to each.

Shapes: N rows · C candidates, each text once
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.metrics.bootstrap import Figures, Floats

Row = Mapping[str, Any]
_TOGETHER = 4_000_000  # cosines that are held at once
_FIRST = 10  # places of the longer recall


class Search:
    """Rows {"text", "positive", perhaps "negative"}; searched are the positives and negatives of all of them.

    What else belongs to a text, and the text itself, is left out of its search.
    """

    def __init__(self, rows: Sequence[Row]):
        found = [(row[name], place, name) for place, row in enumerate(rows) for name in ("positive", "negative")
                 if row.get(name) is not None]  # fmt: skip
        self.places = {text: (place, name) for text, place, name in reversed(found)}  # where each stands first
        self.candidates = list(self.places)
        self.number = {text: at for at, text in enumerate(self.candidates)}
        self.rows, self.belongs = rows, dict[str, set[int]]()
        for row in rows:
            self.belongs.setdefault(row["text"], set()).add(self.number[row["positive"]])

    def ranked(self, pieces: Iterable[Floats]) -> Iterator[dict[str, Any]]:
        """{"rank", "nearest"} of each row, from its cosines (n, C) with all candidates, some rows at a time.

        A rank is 1 + how many are nearer + half of those as near.
        """
        for row, cosines in zip(self.rows, (each for piece in pieces for each in piece), strict=True):
            own = self.number[row["positive"]]
            seen = np.array(cosines, np.float64)
            seen[list(self._aside(row, own))] = -np.inf
            nearer, alike = int((seen > seen[own]).sum()), int((seen == seen[own]).sum()) - 1
            yield {"rank": 1 + nearer + alike / 2, "nearest": self.candidates[int(seen.argmax())]}

    def _aside(self, row: Row, own: int) -> set[int]:
        itself = {self.number[row["text"]]} if row["text"] in self.number else set()
        return (self.belongs[row["text"]] | itself) - {own}


def cosines(queries: Floats, candidates: Floats) -> Iterator[Floats]:
    """Vectors of length 1 (N, D) and (C, D) -> (n, C), some queries at a time."""
    some = max(1, _TOGETHER // max(len(candidates), 1))
    for first in range(0, len(queries), some):
        yield queries[first : first + some] @ candidates.T


def figures(ranks: NDArray[Any], drawn: Floats) -> Figures:
    """Ranks (N,), drawn so many times each (R, N) -> recall of the first and the first ten, and the mean of 1 / rank.

    MRR: Voorhees 1999, "The TREC-8 Question Answering Track Report".
    """
    total = np.maximum(drawn.sum(1), 1)
    values = {"recall_at_1": ranks <= 1, "recall_at_10": ranks <= _FIRST, "mrr": 1 / ranks}
    return {name: drawn @ each.astype(np.float64) / total for name, each in values.items()}
