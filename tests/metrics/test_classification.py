"""Figures of a confusion matrix beside scikit-learn's."""

import itertools

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from danlu.metrics.classification import BINS, confusion, per_class, sample, summary, table


def drawn(classes: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.PCG64(seed))
    truth = random.integers(0, classes, rows)
    return truth, np.where(random.random(rows) < 0.6, truth, random.integers(0, classes, rows))


def matrix(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    return confusion(torch.from_numpy(truth), torch.from_numpy(found), classes).numpy()


@pytest.mark.parametrize(("classes", "rows"), [(2, 50), (3, 200), (11, 400), (40, 60)])
def test_the_figures_are_those_of_scikit_learn(classes: int, rows: int) -> None:
    truth, found = drawn(classes, rows, classes)
    every = list(range(classes))
    made, scores = matrix(truth, found, classes), {"labels": every, "average": "macro", "zero_division": 0}
    assert np.array_equal(made, oracle.confusion_matrix(truth, found, labels=every))
    wanted = {
        "accuracy": oracle.accuracy_score(truth, found),
        "macro_f1": oracle.f1_score(truth, found, **scores),
        "macro_precision": oracle.precision_score(truth, found, **scores),
        "macro_recall": oracle.recall_score(truth, found, **scores),
        "mcc": oracle.matthews_corrcoef(truth, found),
    }
    assert summary(made) == pytest.approx(wanted, abs=1e-12)
    each = oracle.f1_score(truth, found, labels=every, average=None, zero_division=0)
    assert per_class(made)["f1"] == pytest.approx(each, abs=1e-12)


def test_matrices_of_batches_add_up() -> None:
    truth, found = drawn(4, 100, 7)
    parts = matrix(truth[:30], found[:30], 4) + matrix(truth[30:], found[30:], 4)
    assert np.array_equal(parts, matrix(truth, found, 4))


def test_one_answer_for_all_says_nothing() -> None:
    made = matrix(np.array([0, 1, 2, 0]), np.array([0, 0, 0, 0]), 3)
    assert summary(made)["mcc"] == 0.0
    assert [row["rows"] for row in table(made, ["a", "b", "c"])] == [2, 1, 1]


def calibration_error(hit: np.ndarray, sure: np.ndarray) -> float:
    """Guo et al. 2017, equations 2 to 5, bin by bin."""
    total, edges = 0.0, np.linspace(0, 1, BINS + 1)
    for low, high in itertools.pairwise(edges):
        here = (sure > low) & (sure <= high)
        if here.any():
            total += here.sum() * abs(hit[here].mean() - sure[here].mean())
    return total / len(hit)


def test_all_figures_of_rows_at_once() -> None:
    truth, found = drawn(4, 500, 11)
    sure = np.random.Generator(np.random.PCG64(2)).uniform(0.25, 1, 500)
    made = sample(truth, found, sure, 4).figures()
    each = per_class(matrix(truth, found, 4))
    assert {name: float(made[name]) for name in summary(matrix(truth, found, 4))} == pytest.approx(
        summary(matrix(truth, found, 4)), abs=1e-12
    )
    assert all(np.allclose(made[name], each[name], atol=1e-12) for name in each)
    assert float(made["calibration_error"]) == pytest.approx(calibration_error(truth == found, sure), abs=1e-9)
