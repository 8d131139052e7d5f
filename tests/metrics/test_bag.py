"""The bag of n-grams beside scikit-learn's TfidfVectorizer and LogisticRegression."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from danlu.metrics.bag import Bag


def rows(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Sequences of words in which the class shows in some words and some pairs."""
    random = np.random.Generator(np.random.PCG64(seed))
    labels = random.integers(0, 3, count)
    made = []
    for label in labels:
        length = 10 + label
        marks = 10 * label + random.integers(0, 9, length)
        made.append(np.where(random.random(length) < 0.3, marks, random.integers(0, 60, length)))
    return made, labels


def test_it_is_the_model_that_scikit_learn_fits() -> None:
    (learned, labels), (held_out, truth) = rows(300, 1), rows(200, 2)
    ours = Bag(learned, labels, 3, 70)
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False)
    known = words.fit_transform([" ".join(map(str, row)) for row in learned])
    theirs = LogisticRegression(max_iter=2000, tol=1e-10).fit(known, labels)
    asked = words.transform([" ".join(map(str, row)) for row in held_out])
    assert len(ours.known) == known.shape[1]
    assert np.allclose(ours.shares(held_out), theirs.predict_proba(asked), atol=0.01)
    assert (ours.shares(held_out).argmax(1) == truth).mean() == pytest.approx(theirs.score(asked, truth), abs=0.01)


def test_words_that_it_never_saw_are_passed_over() -> None:
    learned, labels = rows(100, 3)
    bag = Bag(learned, labels, 3, 70)
    assert bag.shares([np.array([69, 68, 67]), np.array([], np.int64)]).shape == (2, 3)
