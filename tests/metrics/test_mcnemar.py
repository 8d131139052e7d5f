"""McNemar's test beside SciPy's binomial test and chi-square, and a table from the literature."""

import numpy as np
import pytest
from scipy import stats

from danlu.metrics.mcnemar import compare


def rows(only_first: int, only_second: int, both: int = 30, neither: int = 10) -> tuple[np.ndarray, np.ndarray]:
    first = [True] * only_first + [False] * only_second + [True] * both + [False] * neither
    second = [False] * only_first + [True] * only_second + [True] * both + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (0, 6), (1, 9), (12, 12), (20, 4)])
def test_few_rows_are_judged_exactly(first: int, second: int) -> None:
    found = compare(*rows(first, second))
    assert (found.first, found.second, found.exact) == (first, second, True)
    wanted = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert found.p == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(25, 0), (20, 20), (60, 41), (300, 200)])
def test_many_rows_are_judged_by_chi_square(first: int, second: int) -> None:
    found = compare(*rows(first, second))
    assert not found.exact
    corrected = max(0, abs(first - second) - 1) ** 2 / (first + second)
    assert found.p == pytest.approx(stats.chi2.sf(corrected, 1), rel=1e-10)


def test_an_example_of_the_literature() -> None:
    """Agresti 1990, p. 350 (approval of a minister, twice asked): 150 and 86 changed sides; p = 0.00004 or so."""
    assert compare(*rows(150, 86)).p == pytest.approx(4.1e-5, rel=0.02)


def test_which_comes_first_matters_for_the_counts_alone() -> None:
    one, other = compare(*rows(7, 2)), compare(*reversed(rows(7, 2)))
    assert (one.first, one.second, one.p) == (other.second, other.first, other.p)
