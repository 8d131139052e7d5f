"""Rotary positions: turn each query and key by an angle that grows with its place (2104.09864).

The product of two turned vectors depends on how far apart they stand, not on where.

Shapes: T time · E size of a head · H = E/2 pairs
"""

from __future__ import annotations

import numpy as np

from danlu.scratch.tensor import Array, Tensor, join

Rotation = tuple[Array, Array]  # cos and sin of every angle


class Rotary:
    """Pair i turns by θ^(-2i/E) radians per place: the first is a clock's second hand, the last its hour hand."""

    def __init__(self, head_dim: int, theta: float = 10_000.0):
        self.frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)  # (H,)

    def __call__(self, positions: Array) -> Rotation:
        """(..., T) -> cos and sin (..., T, H)."""
        angles = positions[..., None] * self.frequencies
        return np.cos(angles), np.sin(angles)


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """(..., T, E) -> (..., T, E): (a, b) -> (a cos - b sin, b cos + a sin), b standing half a head behind a."""
    cos, sin = turn
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]  # (..., T, H) each
    return join(a * cos - b * sin, b * cos + a * sin)
