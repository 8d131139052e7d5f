"""Two collections of handwritten digits as arrays: x (N, pixels) from 0 to 1, y (N,) from 0 to 9."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from danlu.scratch.tensor import Array

Examples = tuple[Array, Array]


def mnist(folder: str | Path) -> tuple[Examples, Examples]:
    """60,000 to learn from and 10,000 to test with, 28 x 28, from the four original files (LeCun et al. 1998)."""
    return _split(Path(folder), "train"), _split(Path(folder), "t10k")


def _split(folder: Path, name: str) -> Examples:
    images = idx(folder / f"{name}-images-idx3-ubyte.gz")  # (N, 28, 28)
    return images.reshape(len(images), -1).astype(np.float32) / 255, idx(folder / f"{name}-labels-idx1-ubyte.gz")


def idx(path: Path) -> Array:
    """An idx file: two zeros, the type (8 = bytes), how many axes; 4 bytes for each axis, largest first; the bytes.

    Raises ValueError for anything else.
    """
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no idx file of bytes")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def bundled(held_out: float = 0.2, seed: int = 0) -> tuple[Examples, Examples]:
    """The 1,797 digits of 8 x 8 that come inside scikit-learn; a random fifth of them is kept for the test."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)  # (N, 64) from 0 to 16, (N,)
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [round(held_out * len(x))])
    x = (x / 16).astype(np.float32)
    return (x[train], y[train]), (x[test], y[test])
