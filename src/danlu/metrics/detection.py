"""How well boxes are found: average precision, as COCO counts it (1405.0312).

Shapes: G true boxes · D found boxes, the surest first · T thresholds of overlap; a box is left, top, right, bottom
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from danlu.metrics.bootstrap import Floats

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

    count: int = 0  # of true ones
    scores: list[Floats] = field(default_factory=list)
    hits: list[np.ndarray] = field(default_factory=list)

    def add(self, found: Floats, scores: Floats, true: Floats) -> None:
        """One picture: boxes found (D, 4) with scores (D,), and true ones (G, 4)."""
        order = np.argsort(-scores, kind="stable")[:MOST]
        self.count += len(true)
        self.scores.append(scores[order])
        self.hits.append(matched(found[order], true))

    def precisions(self) -> Floats:
        """Average precision at each threshold (T,)."""
        if not self.scores:
            return np.zeros(len(THRESHOLDS))
        order = np.argsort(-np.concatenate(self.scores), kind="stable")
        return average_precision(np.concatenate(self.hits, 1)[:, order], self.count)

    @property
    def right(self) -> int:
        """Boxes found that match a true one at a half."""
        return int(sum(each[0].sum() for each in self.hits))

    @property
    def missed(self) -> int:
        return self.count - self.right

    @property
    def false(self) -> int:
        return sum(map(len, self.scores)) - self.right

    def shares(self) -> dict[str, float]:
        """`rows`, the true boxes; F1, precision and recall of those found, at a half."""
        found = self.right + self.false
        shares = {
            "f1": (2 * self.right, found + self.count),
            "precision": (self.right, found),
            "recall": (self.right, self.count),
        }
        return {"rows": self.count} | {name: part / max(whole, 1) for name, (part, whole) in shares.items()}


def average_precision(hits: np.ndarray, count: int) -> Floats:
    """Of boxes in order of their scores (T, D), and how many true ones there are: the mean precision (T,).

    At each of 101 recalls the highest precision that is reached there or beyond.
    """
    right = hits.cumsum(1)
    precision = right / np.arange(1, hits.shape[1] + 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    recall = right / max(count, 1)
    found = np.zeros(len(hits))
    for number in range(len(hits)):
        places = np.searchsorted(recall[number], _RECALLS, "left")
        reached = places < hits.shape[1]
        found[number] = precision[number][places[reached]].sum() / len(_RECALLS)
    return found


def summary(tallies: Mapping[str, Tally] | Sequence[Tally]) -> dict[str, float]:
    """Means over the classes that have true boxes: at an overlap of a half, and over all thresholds."""
    each = [
        tally.precisions() for tally in (tallies.values() if isinstance(tallies, Mapping) else tallies) if tally.count
    ]
    table = np.stack(each) if each else np.zeros((1, len(THRESHOLDS)))
    return {"map_50": float(table[:, 0].mean()), "map": float(table.mean())}


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
