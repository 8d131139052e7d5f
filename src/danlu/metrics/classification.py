"""What a confusion matrix says: accuracy; precision, recall and F1 of classes and over them; correlation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def confusion(truth: Any, predicted: Any, classes: int) -> Any:
    """(C, C) float64 tensor of counts, rows the true class; truth and predicted (N,) int64 tensors."""
    import torch

    flat = torch.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.view(classes, classes).double()


def summary(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy; F1, precision and recall as the mean over classes (macro); Matthews' correlation (Gorodkin 2004)."""
    each = per_class(matrix)
    macro = {f"macro_{name}": float(values.mean()) for name, values in each.items()}
    first = {"accuracy": float(np.trace(matrix) / max(matrix.sum(), 1)), "macro_f1": macro.pop("macro_f1")}
    return {**first, "mcc": correlation(matrix), **macro}


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """F1, precision and recall of each class (C,); 0 where a class was never predicted or never there."""
    right, predicted, true = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    return {
        "f1": _share(2 * right, predicted + true),
        "precision": _share(right, predicted),
        "recall": _share(right, true),
    }


def correlation(matrix: np.ndarray) -> float:
    """Matthews' correlation over any number of classes: 1 perfect, 0 no better than chance."""
    total, right = matrix.sum(), np.trace(matrix)
    predicted, true = matrix.sum(0), matrix.sum(1)
    shared = right * total - predicted @ true
    spread = math.sqrt(float(total**2 - predicted @ predicted)) * math.sqrt(float(total**2 - true @ true))
    return float(shared / spread) if spread else 0.0


def table(matrix: np.ndarray, labels: Sequence[str]) -> list[dict[str, float | str]]:
    """A row per class: its label, how many rows have it, F1, precision, recall."""
    each = per_class(matrix)
    return [
        {"label": label, "rows": int(matrix[index].sum()), **{name: float(each[name][index]) for name in each}}
        for index, label in enumerate(labels)
    ]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
