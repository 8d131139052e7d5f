"""Figures of masks, as scikit-learn has them of all pixels in one row."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from danlu.metrics import segmentation

VOID = 255


def masks(count: int = 5, classes: int = 4, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """True masks with pixels of no class, and found ones that are often right."""
    random = np.random.Generator(np.random.PCG64(seed))
    truth = [random.integers(0, classes, (7 + i, 9), np.uint8) for i in range(count)]
    found = [np.where(random.random(t.shape) < 0.6, t, random.integers(0, classes, t.shape, np.uint8)) for t in truth]
    holes = [np.where(random.random(t.shape) < 0.2, VOID, t).astype(np.uint8) for t in truth]
    return holes, [each.astype(np.uint8) for each in found]


def matrices(truth: list[np.ndarray], found: list[np.ndarray], classes: int) -> np.ndarray:
    return np.stack([segmentation.counted(a, b, classes, VOID) for a, b in zip(truth, found, strict=True)])


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_figures_are_those_of_scikit_learn(classes: int) -> None:
    truth, found = masks(classes=classes, seed=classes)
    flat, said = (np.concatenate([each.reshape(-1) for each in side]) for side in (truth, found))
    flat, said = flat[flat != VOID], said[flat != VOID]
    summed = matrices(truth, found, classes).sum(0)
    ours, each = segmentation.summary(summed), segmentation.overlaps(summed)
    assert float(ours["mean_iou"]) == pytest.approx(jaccard_score(flat, said, average="macro"), abs=1e-12)
    assert float(ours["dice"]) == pytest.approx(f1_score(flat, said, average="macro"), abs=1e-12)
    assert float(ours["pixel_accuracy"]) == pytest.approx(accuracy_score(flat, said), abs=1e-12)
    for name, theirs in (
        ("iou", jaccard_score),
        ("f1", f1_score),
        ("precision", precision_score),
        ("recall", recall_score),
    ):
        np.testing.assert_allclose(each[name], theirs(flat, said, average=None), atol=1e-12)


def test_classes_that_are_nowhere_count_for_nothing() -> None:
    """As scikit-learn has it, which knows of no others."""
    truth, found = masks(classes=3)
    wide = matrices(truth, found, 6).sum(0)
    narrow = matrices(truth, found, 3).sum(0)
    assert float(segmentation.summary(wide)["mean_iou"]) == float(segmentation.summary(narrow)["mean_iou"])
    assert np.isnan(segmentation.overlaps(wide)["iou"][3:]).all()
    assert float(segmentation.summary(np.zeros((3, 3)))["mean_iou"]) == 0.0


def test_sums_of_pictures_are_the_figures_of_all() -> None:
    truth, found = masks(12, seed=3)
    each = matrices(truth, found, 4)
    sample = segmentation.sample(each)
    wanted = segmentation.summary(each.sum(0))
    assert {name: float(sample.figures()[name]) for name in segmentation.METRICS} == pytest.approx(
        {name: float(value) for name, value in wanted.items()}
    )
    low, high = sample.intervals(200)["mean_iou"]
    assert low < float(wanted["mean_iou"]) < high
