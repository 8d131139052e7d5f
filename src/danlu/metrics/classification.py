"""What a confusion matrix says: accuracy; precision, recall and F1 of classes and over them; correlation; calibration.

Shapes: N rows · C classes · K kinds of rows · R rounds of a bootstrap
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from danlu.metrics.bootstrap import Figures, Floats, Sample

BINS = 15  # of confidence, of equal width (Guo et al. 2017, 1706.04599)
_FINE = 64  # parts of a bin, within which rows are taken as equally confident when they are drawn anew
_PER_CLASS = ("f1", "precision", "recall")


def confusion(truth: Any, predicted: Any, classes: int) -> Any:
    """(C, C) float64 tensor of counts, rows the true class; truth and predicted (N,) int64 tensors."""
    import torch

    flat = torch.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.view(classes, classes).double()


def summary(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy; F1, precision and recall as the mean over classes (macro); Matthews' correlation (Gorodkin 2004)."""
    right, predicted, true = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    found = _figures(right[None], predicted[None], true[None])
    return {name: float(each[0]) for name, each in found.items() if name not in _PER_CLASS}


def table(matrix: np.ndarray, labels: Sequence[str]) -> list[dict[str, float | str]]:
    """A row per class: its label, how many rows have it, F1, precision, recall; 0 where never predicted or there."""
    each = per_class(matrix)
    return [
        {"label": label, "rows": int(matrix[index].sum()), **{name: float(each[name][index]) for name in each}}
        for index, label in enumerate(labels)
    ]


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """F1, precision and recall of each class (C,); 0 where a class was never predicted or never there."""
    found = _figures(np.diag(matrix)[None], matrix.sum(0)[None], matrix.sum(1)[None])
    return {name: found[name][0] for name in _PER_CLASS}


def sample(truth: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, classes: int) -> Sample:
    """Rows by true class, predicted class and confidence in it (N,): all figures of them, and of each class.

    The calibration error is the mean over bins of |confidence - accuracy|, weighted by their rows (Naeini et al. 2015).
    """
    fine = np.clip(np.ceil(confidence * BINS * _FINE).astype(np.int64) - 1, 0, BINS * _FINE - 1)
    keys, kind, counts = np.unique(
        (truth * classes + predicted) * BINS * _FINE + fine, return_inverse=True, return_counts=True
    )
    true, found = np.divmod(keys // (BINS * _FINE), classes)
    hit = true == found
    gap = np.bincount(kind, confidence, len(keys)) / counts - hit
    true_of, found_of = (np.eye(classes)[each] for each in (true, found))
    bin_of = np.eye(BINS)[keys % (BINS * _FINE) // _FINE] * gap[:, None]

    def statistic(drawn: Floats) -> Figures:
        figures = _figures(drawn @ (true_of * hit[:, None]), drawn @ found_of, drawn @ true_of)
        return figures | {"calibration_error": np.abs(drawn @ bin_of).sum(1) / np.maximum(drawn.sum(1), 1)}

    return Sample(counts, statistic)


def hits(right: np.ndarray, confidence: np.ndarray) -> Sample:
    """Rows of which an answer is right (N,), and how sure it was (N,): accuracy and calibration error."""
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps, hit = np.eye(BINS)[bins] * (confidence - right)[:, None], right.astype(float)

    def statistic(drawn: Floats) -> Figures:
        total = np.maximum(drawn.sum(1), 1)
        return {"accuracy": drawn @ hit / total, "calibration_error": np.abs(drawn @ gaps).sum(1) / total}

    return Sample(np.ones(len(right), np.int64), statistic)


def sample_by(
    truth: np.ndarray, predicted: np.ndarray, classes: int, summary: Callable[[np.ndarray], dict[str, float]]
) -> Sample:
    """Rows by true and predicted class (N,): the figures that `summary` makes of a confusion matrix (C, C)."""
    cells, counts = np.unique(truth * classes + predicted, return_counts=True)

    def statistic(drawn: Floats) -> Figures:
        matrices = np.zeros((len(drawn), classes * classes))
        matrices[:, cells] = drawn
        found = [summary(each.reshape(classes, classes)) for each in matrices]
        return {name: np.array([each[name] for each in found]) for name in found[0]}

    return Sample(counts, statistic)


def _figures(right: Floats, predicted: Floats, true: Floats) -> Figures:
    """From how many rows of each class (R, C) were found, predicted and there."""
    total = np.maximum(true.sum(1), 1)
    each = {
        "f1": share(2 * right, predicted + true),
        "precision": share(right, predicted),
        "recall": share(right, true),
    }
    macro = {f"macro_{name}": values.mean(1) for name, values in each.items()}
    first = {"accuracy": right.sum(1) / total, "macro_f1": macro.pop("macro_f1")}
    return {**first, "mcc": _correlation(right.sum(1), predicted, true), **macro, **each}


def _correlation(right: Floats, predicted: Floats, true: Floats) -> Floats:
    """Matthews' correlation over any number of classes (R,): 1 perfect, 0 no better than chance."""
    total = true.sum(1)
    shared = right * total - (predicted * true).sum(1)
    spread = np.sqrt(total**2 - (predicted**2).sum(1)) * np.sqrt(total**2 - (true**2).sum(1))
    return np.divide(shared, spread, out=np.zeros(len(shared)), where=spread > 0)


def share(part: Floats, whole: Floats) -> Floats:
    """part / whole, and 0 of nothing."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
