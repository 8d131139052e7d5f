"""How pictures that were made compare with real ones.

Shapes: N pictures made · M real ones · D features · C classes · P pixels
"""

from collections.abc import Iterable

import numpy as np

SURE = 0.9  # of a class, from which a picture shows it


def frechet(made: np.ndarray, real: np.ndarray) -> float:
    """The Fréchet distance of two sets of features (N, D), (M, D), as if both were normal (Dowson & Landau 1982).

    |mean - mean'|² + tr(cov + cov' - 2 (cov cov')^½), as FID has it (1706.08500), there of an Inception network's
    features, here of whose they are. Not a number where either set has fewer than two.
    """
    if min(len(made), len(real)) < 2:
        return float("nan")
    between = made.mean(0, dtype=np.float64) - real.mean(0, dtype=np.float64)
    first, second = (np.atleast_2d(np.cov(each, rowvar=False, dtype=np.float64)) for each in (made, real))
    # The trace of the root of a product is that of the symmetric (cov^½ cov' cov^½)^½, whose eigenvalues are real.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    return float(max(between @ between + np.trace(first) + np.trace(second) - 2 * shared, 0.0))


def verdicts(shares: np.ndarray) -> dict[str, float]:
    """Of what a classifier says of pictures (N, C): how many it is sure of, and how often the rarest and commonest are.

    {"sure", "rarest", "commonest"}, all as shares of the pictures.
    """
    counts = spread_of(shares)
    return {"sure": float((shares.max(1) >= SURE).mean()), "rarest": min(counts), "commonest": max(counts)}


def spread_of(shares: np.ndarray) -> list[float]:
    """The share of the pictures (N, C) of which each class is the likeliest."""
    counts = np.bincount(shares.argmax(1), minlength=shares.shape[1])
    return [float(each) / len(shares) for each in counts]


def nearest(made: np.ndarray, real: Iterable[np.ndarray]) -> float:
    """The median distance of pictures, uint8 (N, ...), to the nearest of real ones, which come in pieces (M, ...).

    The distance is the root of the mean square difference of pixels, as a share of their range.
    """
    flat = _scaled(made, len(made))
    least, own = np.full(len(flat), np.inf, np.float32), (flat**2).sum(1)
    for piece in real:
        other = _scaled(piece, len(piece))
        squares = own[:, None] + (other**2).sum(1) - 2 * flat @ other.T
        least = np.minimum(least, squares.min(1))
    return float(np.median(np.sqrt(least.clip(min=0) / flat.shape[1])))


def _scaled(pictures: np.ndarray, count: int) -> np.ndarray:
    """fp32 (count, P), from -½ to ½: so that sums of squares keep their last digits."""
    return pictures.reshape(count, -1).astype(np.float32) / 255 - 0.5
