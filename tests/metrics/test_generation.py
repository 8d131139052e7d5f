"""Figures of pictures that were made: against SciPy's root of a matrix, and a search that compares all with all."""

import numpy as np
import pytest
from scipy import linalg, spatial

from danlu.metrics.generation import frechet, nearest, spread_of, verdicts


def features(count: int, seed: int, dim: int = 6) -> np.ndarray:
    random = np.random.Generator(np.random.PCG64(seed))
    mixed = random.normal(size=(count, dim)) @ random.normal(size=(dim, dim))
    return (mixed + random.normal(size=dim)).astype(np.float32)


@pytest.mark.parametrize(("made", "real"), [(200, 300), (50, 40), (7, 5)])  # the last have no full covariance
def test_the_frechet_distance_is_scipys(made: int, real: int) -> None:
    a, b = features(made, 1).astype(np.float64), features(real, 2).astype(np.float64)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-5)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


def test_it_is_the_shift_of_what_is_moved_and_nothing_of_itself() -> None:
    a = features(100, 3)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, a + 2) == pytest.approx(4 * a.shape[1], rel=1e-5)
    assert np.isnan(frechet(a[:1], a))


def test_what_a_classifier_says_is_counted() -> None:
    shares = np.array([[0.95, 0.05, 0.0], [0.5, 0.4, 0.1], [0.02, 0.08, 0.9], [0.6, 0.2, 0.2]])
    assert spread_of(shares) == [0.75, 0.0, 0.25]
    assert verdicts(shares) == {"sure": 0.5, "rarest": 0.0, "commonest": 0.75}


def test_the_nearest_picture_is_found_in_whatever_piece_it_is() -> None:
    random = np.random.Generator(np.random.PCG64(4))
    made, real = (random.integers(0, 256, (count, 1, 5, 5), np.uint8) for count in (9, 50))
    distances = spatial.distance.cdist(made.reshape(9, -1) / 255, real.reshape(50, -1) / 255) / 5
    wanted = float(np.median(distances.min(1)))
    for pieces in ([real], [real[:7], real[7:]]):
        assert nearest(made, pieces) == pytest.approx(wanted, rel=1e-5)
    assert nearest(real[:3], [real]) == pytest.approx(0, abs=1e-3)
