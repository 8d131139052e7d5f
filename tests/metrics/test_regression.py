"""Figures of predicted numbers beside SciPy's and scikit-learn's."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from danlu.metrics.regression import sample


def drawn(rows: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.PCG64(rows))
    truth = random.normal(3, 2, rows)
    found = truth + random.normal(0, 1, rows)
    return (np.round(truth), np.round(found)) if ties else (truth, found)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rows", [5, 40, 1000])
def test_the_figures_are_those_of_others(rows: int, ties: bool) -> None:
    truth, found = drawn(rows, ties)
    made = {name: float(value) for name, value in sample(truth, found).figures().items()}
    assert made == pytest.approx(
        {
            "rmse": np.sqrt(oracle.mean_squared_error(truth, found)),
            "mae": oracle.mean_absolute_error(truth, found),
            "r2": oracle.r2_score(truth, found),
            "pearson": stats.pearsonr(truth, found).statistic,
            "spearman": stats.spearmanr(truth, found).statistic,
        },
        abs=1e-10,
    )


def test_rows_drawn_anew_are_ranked_anew() -> None:
    """A drawn count of each row gives what the rows, repeated so many times, give."""
    truth, found = drawn(60, True)
    counts = np.random.Generator(np.random.PCG64(5)).integers(0, 4, 60)
    made = sample(truth, found).statistic(counts[None].astype(float))
    again = np.repeat(truth, counts), np.repeat(found, counts)
    assert made["spearman"][0] == pytest.approx(stats.spearmanr(*again).statistic, abs=1e-10)
    assert made["r2"][0] == pytest.approx(oracle.r2_score(*again), abs=1e-10)


def test_numbers_that_are_all_the_same_have_no_order() -> None:
    made = sample(np.array([1.0, 2.0, 3.0]), np.full(3, 2.0)).figures()
    assert float(made["spearman"]) == 0.0
    assert float(made["pearson"]) == 0.0
