"""How well masks agree, pixel by pixel: mean intersection over union, Dice, accuracy, from sums over pictures.

Shapes: N pictures · C classes · R rounds of a bootstrap; matrices (..., C, C) count pixels, rows the true class
"""

from typing import Any

import numpy as np

from danlu.metrics.bootstrap import Figures, Floats, Sample

METRICS = ("mean_iou", "dice", "pixel_accuracy")


def counted(truth: np.ndarray, found: np.ndarray, classes: int, void: int) -> Floats:
    """(C, C) of the pixels of one mask, those of no class left out; both uint8, of one shape."""
    known = truth != void
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(float)


def overlaps(matrix: Any) -> Figures:
    """Of each class (..., C): `iou`, `f1` (which is Dice), `precision` and `recall`; NaN where it is nowhere."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    found, true = matrix.sum(-2), matrix.sum(-1)
    nowhere = found + true == 0
    shares = {"iou": (right, found + true - right), "f1": (2 * right, found + true)}
    made = {name: _share(part, whole) for name, (part, whole) in shares.items()}
    made |= {"precision": _share(right, found), "recall": _share(right, true)}
    return {name: np.where(nowhere, np.nan, each) for name, each in made.items()}


def summary(matrix: Any) -> Figures:
    """(...,) each: means over the classes that are somewhere, and the share of the pixels that are right."""
    each = overlaps(matrix)
    right, total = np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1))
    return {
        "mean_iou": _mean(each["iou"]),
        "dice": _mean(each["f1"]),
        "pixel_accuracy": _share(right, total),
    }


def sample(matrices: Floats) -> Sample:
    """Pictures by their own matrices (N, C, C): all figures, and those of each class, had other pictures been drawn."""
    pictures, classes = matrices.shape[:2]
    flat = matrices.reshape(pictures, classes**2)

    def statistic(drawn: Floats) -> Figures:
        summed = (drawn @ flat).reshape(len(drawn), classes, classes)
        each = {name: np.nan_to_num(values) for name, values in overlaps(summed).items()}
        return summary(summed) | each

    return Sample(np.ones(pictures, np.int64), statistic)


def _share(part: Any, whole: Any) -> Floats:
    """part / whole, and 0 of nothing."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _mean(each: Floats) -> Floats:
    """Over the classes that are somewhere; 0 where none is."""
    somewhere = ~np.isnan(each)
    return _share(np.where(somewhere, each, 0.0).sum(-1), somewhere.sum(-1))
