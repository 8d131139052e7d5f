"""What a confusion matrix says of relations with a direction, as SemEval-2010 task 8 scores them."""

import re
from collections.abc import Sequence

import numpy as np

_DIRECTION = re.compile(r"\(e[12],\s*e[12]\)$")
NONE = ("other", "no_relation", "none", "na")  # names, in lower case, of what is no relation


def relation(label: str) -> str:
    """The relation of a label, without its direction."""
    return _DIRECTION.sub("", label)


def per_relation(matrix: np.ndarray, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """{relation: (right, found, true)}: what is right has the right direction too; what is no relation is left out.

    matrix (C, C) counts, rows the true label.
    """
    sums: dict[str, np.ndarray] = {}
    for index, label in enumerate(labels):
        if label.lower() not in NONE:
            counts = np.array([matrix[index, index], matrix[:, index].sum(), matrix[index].sum()], float)
            sums[relation(label)] = sums.get(relation(label), np.zeros(3)) + counts
    return sums


def figures(counts: np.ndarray) -> tuple[float, float, float]:
    """F1, precision, recall of (right, found, true)."""
    right, found, true = (float(each) for each in counts)
    return 2 * right / max(found + true, 1), right / max(found, 1), right / max(true, 1)


def summary(matrix: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Macro F1 over the relations, directions taken into account and Other left out (Hendrickx et al. 2010); micro F1
    likewise; accuracy over all labels."""
    counts = per_relation(matrix, labels)
    every = [figures(each)[0] for each in counts.values()]
    micro = figures(sum(counts.values(), np.zeros(3)))[0]
    accuracy = float(np.trace(matrix) / max(matrix.sum(), 1))
    return {"relation_f1": float(np.mean(every)) if every else 0.0, "micro_relation_f1": micro, "accuracy": accuracy}
