"""How well boxes are found: average precision, as COCO counts it (1405.0312).

Shapes: N pictures · G true boxes · D found boxes, the surest first · C classes · T thresholds of overlap ·
R rounds of a bootstrap; a box is left, top, right, bottom
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from danlu.metrics.bootstrap import Figures, Floats, Sample

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10).astype(np.float64)  # of overlap
MOST = 100  # found boxes of a picture and class that are counted
_RECALLS = np.linspace(0, 1, 101)  # at which precision is looked at


def overlaps(found: Floats, true: Floats) -> Floats:
    """Intersection over union of boxes (D, 4) with boxes (G, 4) -> (D, G)."""
    least, most = np.maximum(found[:, None, :2], true[None, :, :2]), np.minimum(found[:, None, 2:], true[None, :, 2:])
    both = np.clip(most - least, 0, None).prod(-1)
    sizes = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (found, true)]
    return both / np.maximum(sizes[0][:, None] + sizes[1][None] - both, 1e-12)


def matched(found: Floats, true: Floats, thresholds: Floats = THRESHOLDS) -> np.ndarray:
    """Which of the boxes found (D, 4), the surest first, are each the best match of a true one left: bool (T, D)."""
    shared, hits = overlaps(found, true), np.zeros((len(thresholds), len(found)), bool)
    for number, threshold in enumerate(thresholds):
        left = np.ones(len(true), bool)
        for place in range(len(found) if len(true) else 0):
            best = int(np.where(left, shared[place], -1.0).argmax())
            if left[best] and shared[place, best] >= threshold:
                hits[number, place], left[best] = True, False
    return hits


BINS = 100  # of scores, of equal width


@dataclass
class Tally:
    """All boxes of one class, picture by picture."""

    counts: list[int] = field(default_factory=list)  # of true ones
    scores: list[Floats] = field(default_factory=list)
    hits: list[np.ndarray] = field(default_factory=list)

    def add(self, found: Floats, scores: Floats, true: Floats) -> None:
        """One picture: boxes found (D, 4) with scores (D,), and true ones (G, 4)."""
        order = np.argsort(-scores, kind="stable")[:MOST]
        self.counts.append(len(true))
        self.scores.append(scores[order])
        self.hits.append(matched(found[order], true))

    def ranked(self) -> "Ranked":
        """The boxes of all pictures together, the surest first."""
        scores = np.concatenate([np.zeros(0), *self.scores])
        order = np.argsort(-scores, kind="stable")
        hits = np.concatenate([np.zeros((len(THRESHOLDS), 0), bool), *self.hits], 1)
        pictures = np.repeat(np.arange(len(self.scores)), [len(each) for each in self.scores])
        right, counts = hits[:, order], np.array(self.counts, float)
        places = np.flatnonzero(right.any(0))
        return Ranked(right[:, places], places, pictures[order], counts)

    @property
    def triples(self) -> Floats:
        """Boxes that are found and right at a half, found, and true, of each picture (N, 3)."""
        rows = [(hits[0].sum(), len(scores), count)
                for hits, scores, count in zip(self.hits, self.scores, self.counts, strict=True)]  # fmt: skip
        return np.array(rows, float).reshape(-1, 3)

    @property
    def missed(self) -> int:
        right, _, true = self.triples.sum(0)
        return int(true - right)

    @property
    def false(self) -> int:
        right, found, _ = self.triples.sum(0)
        return int(found - right)

    def shares(self) -> dict[str, float]:
        """`rows`, the true boxes; F1, precision and recall of those found, at a half."""
        right, found, true = self.triples.sum(0).tolist()
        shares = {"f1": (2 * right, found + true), "precision": (right, found), "recall": (right, true)}
        return {"rows": int(true)} | {name: part / max(whole, 1) for name, (part, whole) in shares.items()}


@dataclass(frozen=True)
class Ranked:
    """Boxes of one class, the surest first."""

    hits: np.ndarray  # of those that are right at some threshold (H,): at which (T, H)
    places: np.ndarray  # where they stand among all (H,)
    pictures: np.ndarray  # whose each of all is (D,)
    counts: Floats  # true boxes of each picture (N,)

    def precisions(self, drawn: Floats) -> Floats:
        """Average precision at each threshold (T,), had each picture been there so many times (N,); NaN where then no
        true box is."""
        count = float(drawn @ self.counts)
        if not count:
            return np.full(len(THRESHOLDS), np.nan)
        weights = drawn[self.pictures]
        return average_precision(self.hits, count, weights[self.places], weights.cumsum()[self.places])


def average_precision(hits: np.ndarray, count: float, weights: Floats, seen: Floats) -> Floats:
    """Mean precision (T,) of boxes in order of their scores: of those right somewhere (T, H) how often each counts
    (H,), and how many boxes there are up to it (H,), right or not; `count` are the true ones.

    At each of 101 recalls the highest precision that is reached there or beyond: only where a box is right it rises.
    """
    right = (hits * weights).cumsum(1)
    precision = right / np.maximum(seen, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    recall = right / max(count, 1)
    found = np.zeros(len(hits))
    for number in range(len(hits)):
        places = np.searchsorted(recall[number], _RECALLS, "left")
        reached = places < hits.shape[1]
        found[number] = precision[number][places[reached]].sum() / len(_RECALLS)
    return found


def sample(tallies: Sequence[Tally], sure: Sequence[Tally]) -> Sample:
    """Pictures with their boxes of each class: mean average precision, had other pictures been drawn; and F1 of each
    class, of those boxes alone that the model is `sure` of.

    Means are over the classes that have true boxes: at an overlap of a half, and over all thresholds.
    """
    ranked, triples = [tally.ranked() for tally in tallies], np.stack([tally.triples for tally in sure])

    def statistic(drawn: Floats) -> Figures:
        table = np.array([[each.precisions(row) for each in ranked] for row in drawn])
        right, found, true = np.moveaxis(np.einsum("rn,cnk->rck", drawn, triples), -1, 0)
        means = {"map_50": _mean(table[..., 0]), "map": _mean(table.mean(-1))}
        return means | {"f1": 2 * right / np.maximum(found + true, 1)}

    return Sample(np.ones(triples.shape[1], np.int64), statistic)


def _mean(each: Floats) -> Floats:
    """Over the classes that have true boxes (..., C); 0 where none has."""
    known = ~np.isnan(each)
    total: Floats = np.where(known, each, 0.0).sum(-1) / np.maximum(known.sum(-1), 1)
    return total


# --- sums over batches ---


def binned(sums: Floats, found: Floats, true: Floats) -> None:
    """Add one picture to sums (3, C, bins): boxes found by score, those right at a half, and true ones (in bin 0).

    found (D, 6) with scores and classes, the surest first; true (G, 5) with classes.
    """
    for kind in range(sums.shape[1]):
        own, wanted = found[found[:, 5] == kind], true[true[:, 4] == kind]
        hits = matched(own[:, :4], wanted[:, :4], THRESHOLDS[:1])[0]
        bins = np.minimum((own[:, 4] * BINS).astype(int), BINS - 1)
        sums[0, kind] += np.bincount(bins, minlength=BINS)
        sums[1, kind] += np.bincount(bins[hits], minlength=BINS)
        sums[2, kind, 0] += len(wanted)


def of_bins(sums: Floats) -> float:
    """Mean average precision at a half from such sums, as fine as the bins are."""
    found = []
    for seen, right, counts in zip(*sums, strict=True):
        if not counts[0]:
            continue
        right, seen = right[::-1].cumsum(), seen[::-1].cumsum()
        precision = np.maximum.accumulate((right / np.maximum(seen, 1))[::-1])[::-1]
        places = np.searchsorted(right / counts[0], _RECALLS, "left")
        found.append(precision[places[places < BINS]].sum() / len(_RECALLS))
    return float(np.mean(found)) if found else 0.0
