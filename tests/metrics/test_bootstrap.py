"""Intervals against drawing rows again and again by hand; and how long they take."""

import time

import numpy as np
import pytest
from sklearn import metrics as oracle

from danlu.metrics import classification, regression
from danlu.metrics.bootstrap import Sample


def judged(rows: int, classes: int = 3, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.PCG64(seed))
    truth = random.integers(0, classes, rows)
    found = np.where(random.random(rows) < 0.7, truth, random.integers(0, classes, rows))
    return truth, found, random.uniform(1 / classes, 1, rows)


def by_hand(truth: np.ndarray, found: np.ndarray, figure: object) -> np.ndarray:
    """The percentiles of a figure over rows drawn with replacement."""
    random = np.random.Generator(np.random.PCG64(9))
    drawn = [random.integers(0, len(truth), len(truth)) for _ in range(300)]
    return np.percentile([figure(truth[rows], found[rows]) for rows in drawn], (2.5, 97.5))  # type: ignore[operator]


def test_the_interval_is_that_of_rows_drawn_by_hand() -> None:
    truth, found, sure = judged(400)
    made = classification.sample(truth, found, sure, 3).intervals(1000)
    for name, figure in (
        ("accuracy", oracle.accuracy_score),
        ("macro_f1", lambda t, f: oracle.f1_score(t, f, average="macro")),
        ("mcc", oracle.matthews_corrcoef),
    ):
        assert made[name] == pytest.approx(by_hand(truth, found, figure), abs=0.02), name


def test_it_is_the_same_each_time_and_holds_the_figure() -> None:
    sample = classification.sample(*judged(300), 3)
    figures, one, other = sample.figures(), sample.intervals(), sample.intervals()
    for name, ends in one.items():
        assert np.array_equal(ends, other[name])
        if name != "calibration_error":  # which is biased upwards where few rows are drawn
            assert np.all((ends[0] <= figures[name]) & (figures[name] <= ends[1])), name


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.Generator(np.random.PCG64(3))
    covered = 0
    for _ in range(200):
        truth = random.integers(0, 2, 150)
        found = np.where(random.random(150) < 0.8, truth, 1 - truth)
        low, high = classification.sample(truth, found, np.full(150, 0.8), 2).intervals(400)["accuracy"]
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_no_rows_have_no_interval() -> None:
    assert Sample(np.array([], np.int64), lambda drawn: {"x": drawn.sum(1)}).intervals() == {}


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_ten_thousand_rows_take_about_a_second(kind: str) -> None:
    random = np.random.Generator(np.random.PCG64(1))
    truth = random.normal(size=10_000)
    started = time.process_time()
    if kind == "classification":
        classification.sample(*judged(10_000, 10), 10).intervals()
    else:
        regression.sample(truth, truth + random.normal(size=10_000)).intervals()
    assert time.process_time() - started < 4, "about one on a machine that does nothing else"
