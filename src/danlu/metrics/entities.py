"""Entities among the tags of words, and how many of them were found: strict spans by type, as conlleval counts them.

Tjong Kim Sang and Buchholz (2000, CoNLL shared task). A tag is O, or a mark and a type: B-PER begins, I-PER (M-PER)
goes on, E-PER (L-PER) ends, S-PER (U-PER, W-PER) is all of an entity.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from danlu.metrics.bootstrap import Sample

OUTSIDE = "O"
_TAG = re.compile(r"O|([BIESMLUW])-(\S.*)")
_SAME = {"M": "I", "L": "E", "U": "S", "W": "S"}
Entity = tuple[str, int, int]  # type, first word, past the last
Counts = dict[str, list[int]]  # by type: right, found, true


def is_tag(tag: str) -> bool:
    """Whether this is a tag of any of the schemes."""
    return _TAG.fullmatch(tag) is not None


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags of any scheme mean, in order.

    A tag that cannot go on with what stands before it (I- after O, or of another type) begins an entity, and what was
    open ends there.
    """
    found: list[Entity] = []
    before, begun = (OUTSIDE, ""), 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, kind = _parted(tag)
        goes_on = mark in "IE" and before[0] in ("B", "I") and kind == before[1]
        if not goes_on:
            if before[0] != OUTSIDE:
                found.append((before[1], begun, place))
            begun = place
        before = mark, kind
    return found


def _parted(tag: str) -> tuple[str, str]:
    mark, _, kind = tag.partition("-")
    return _SAME.get(mark, mark), kind


def tags(spans: Iterable[Entity], length: int) -> list[str]:
    """BIO tags of `length` words; `spans` may not overlap."""
    made = [OUTSIDE] * length
    for kind, start, stop in spans:
        made[start:stop] = [f"B-{kind}", *[f"I-{kind}"] * (stop - start - 1)]
    return made


def counted(truth: Iterable[Iterable[Entity]], found: Iterable[Iterable[Entity]]) -> Counts:
    """Entities right, found and true, by type, over texts."""
    sums: Counts = {}
    for wanted, said in zip(truth, found, strict=True):
        real, claimed = set(wanted), set(said)
        for place, entities_ in enumerate((real & claimed, claimed, real)):
            for kind, *_ in entities_:
                sums.setdefault(kind, [0, 0, 0])[place] += 1
    return sums


def summary(counts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """F1, precision and recall over all entities (micro), and F1 as the mean over types (macro)."""
    total = [sum(each) for each in zip(*counts.values(), strict=True)] or [0, 0, 0]
    f1, precision, recall = _figures(total)
    mean = sum(_figures(each)[0] for each in counts.values()) / max(len(counts), 1)
    return {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall, "macro_entity_f1": mean}


def sample(truth: Iterable[Iterable[Entity]], found: Iterable[Iterable[Entity]]) -> "Sample":
    """Texts with their entities, true and found: the figures of `summary` and of each type, had other texts been drawn.

    Shapes: R rounds · N texts · C types
    """
    import numpy as np

    from danlu.metrics.bootstrap import Figures, Floats, Sample
    from danlu.metrics.classification import share

    counts = [counted([wanted], [said]) for wanted, said in zip(truth, found, strict=True)]
    kinds = sorted({kind for each in counts for kind in each})
    parts = np.array([[each.get(kind, (0, 0, 0)) for kind in kinds] for each in counts], float)

    def statistic(drawn: Floats) -> Figures:
        sums = np.einsum("rn,nck->krc", drawn, parts) if kinds else np.zeros((3, len(drawn), 1))
        right, said, true = sums
        each = {"f1": share(2 * right, said + true), "precision": share(right, said), "recall": share(right, true)}
        right, said, true = sums.sum(-1)
        f1, precision, recall = share(2 * right, said + true), share(right, said), share(right, true)
        whole = {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}
        return {**whole, "macro_entity_f1": each["f1"].mean(1), **each}

    return Sample(np.ones(len(counts), np.int64), statistic)


def table(counts: Mapping[str, Sequence[int]]) -> list[dict[str, float | str]]:
    """A row per type: its name, how many entities have it, F1, precision, recall."""
    figures = {kind: _figures(each) for kind, each in sorted(counts.items())}
    return [
        {"label": kind, "rows": counts[kind][2], "f1": f1, "precision": precision, "recall": recall}
        for kind, (f1, precision, recall) in figures.items()
    ]


def _figures(counts: Sequence[int]) -> tuple[float, float, float]:
    """F1, precision, recall of (right, found, true); 0 where there is nothing to be right about."""
    right, found, true = counts
    return 2 * right / max(found + true, 1), right / max(found, 1), right / max(true, 1)
