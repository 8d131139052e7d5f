"""SemEval-2010 task 8's score against counts made by hand."""

import numpy as np
import pytest

from danlu.metrics.relations import per_relation, relation, summary

LABELS = ["Cause(e1,e2)", "Cause(e2,e1)", "Whole(e1,e2)", "Other"]
#            predicted:  c12 c21 w12 other
MATRIX = np.array([[3.0, 1.0, 0.0, 1.0],  # five of Cause(e1,e2), one found in the wrong direction
                   [0.0, 2.0, 1.0, 0.0],
                   [0.0, 1.0, 4.0, 1.0],
                   [2.0, 0.0, 0.0, 7.0]])  # fmt: skip


def test_directions_count_and_other_does_not() -> None:
    counts = per_relation(MATRIX, LABELS)
    assert {name: list(each) for name, each in counts.items()} == {"Cause": [5, 9, 8], "Whole": [4, 5, 6]}
    # Cause: P 5/9, R 5/8, F1 10/17; Whole: P 4/5, R 4/6, F1 8/11
    figures = summary(MATRIX, LABELS)
    assert figures["relation_f1"] == pytest.approx((10 / 17 + 8 / 11) / 2)
    assert figures["micro_relation_f1"] == pytest.approx(2 * 9 / (14 + 14))
    assert figures["accuracy"] == pytest.approx(16 / 23)


def test_a_relation_that_is_never_found_pulls_the_mean_down() -> None:
    matrix = np.array([[2.0, 0.0], [1.0, 0.0]])
    assert summary(matrix, ["A(e1,e2)", "B(e1,e2)"])["relation_f1"] == pytest.approx((4 / 5 + 0) / 2)
    assert summary(np.zeros((2, 2)), ["A", "no_relation"])["relation_f1"] == 0.0


def test_names_without_directions() -> None:
    assert [relation(each) for each in ("A(e1,e2)", "A(e2, e1)", "A", "per:born_in")] == ["A", "A", "A", "per:born_in"]
