"""Attention: every token asks (q), every token offers (k), and what fits is mixed (v).

    attention(Q, K, V) = softmax(Q Kᵀ / √E) V          (1706.03762)

Shapes: B batch · T queries · S keys · D width · H heads · K key/value heads · G = H/K heads that share · E head size
"""

from __future__ import annotations

import math

import numpy as np

from danlu.scratch.activations import softmax
from danlu.scratch.linear import Linear
from danlu.scratch.module import Module
from danlu.scratch.norms import RMSNorm
from danlu.scratch.positions import Rotation, rotate
from danlu.scratch.tensor import Array, Tensor


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Array | None = None) -> Tensor:
    """q (..., T, E), k and v (..., S, E), mask (..., T, S) True = may look -> (..., T, E).

    A sum of E products grows like √E; divided by it, softmax neither freezes nor blurs as heads get larger.
    """
    scores = q @ k.swap(-1, -2) * (1 / math.sqrt(q.shape[-1]))  # (..., T, S)
    if mask is not None:
        scores = scores + np.where(mask, 0.0, -np.inf)  # e^-inf = 0: no weight, no gradient
    return softmax(scores) @ v  # (..., T, S) @ (..., S, E)


def causal(size: int) -> Array:
    """(T, T): token t may look at itself and at what came before."""
    return np.tril(np.ones((size, size), dtype=bool))


def split(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads E) -> (B, heads, T, E)."""
    B, T, width = x.shape
    return x.reshape(B, T, heads, width // heads).swap(1, 2)


def merge(x: Tensor) -> Tensor:
    """(B, H, T, E) -> (B, T, H E)."""
    B, H, T, E = x.shape
    return x.swap(1, 2).reshape(B, T, H * E)


class MultiHeadAttention(Module):
    """As in 2017: H heads look at different things at once; D = H E."""

    def __init__(self, dim: int, heads: int, rng: np.random.Generator):
        self.heads = heads
        self.q, self.k, self.v, self.o = (Linear(dim, dim, rng) for _ in range(4))

    def forward(self, x: Tensor, mask: Array | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, T, T) -> (B, T, D)."""
        q, k, v = (split(linear(x), self.heads) for linear in (self.q, self.k, self.v))  # (B, H, T, E) each
        return self.o(merge(scaled_dot_product(q, k, v, mask)))


class GroupedQueryAttention(Module):
    """As today: G heads share one key and value (2305.13245), queries and keys are normalised, then turned."""

    def __init__(self, dim: int, heads: int, kv_heads: int, head_dim: int, rng: np.random.Generator):
        self.heads, self.kv_heads = heads, kv_heads
        self.q = Linear(dim, heads * head_dim, rng, bias=False)
        self.k = Linear(dim, kv_heads * head_dim, rng, bias=False)
        self.v = Linear(dim, kv_heads * head_dim, rng, bias=False)
        self.o = Linear(heads * head_dim, dim, rng, bias=False)
        self.q_norm, self.k_norm = RMSNorm(head_dim), RMSNorm(head_dim)

    def forward(self, x: Tensor, turn: Rotation, mask: Array) -> Tensor:
        """x (B, T, D), turn (B, 1, T, E/2) twice, mask (B, 1, T, T) -> (B, T, D)."""
        q = rotate(self.q_norm(split(self.q(x), self.heads)), turn)  # (B, H, T, E)
        k = rotate(self.k_norm(split(self.k(x), self.kv_heads)), turn)  # (B, K, T, E)
        v = split(self.v(x), self.kv_heads)  # (B, K, T, E)
        return self.o(merge(self._shared(q, k, v, mask)))

    def _shared(self, q: Tensor, k: Tensor, v: Tensor, mask: Array) -> Tensor:
        """Heads of one group stand on an axis of their own, along which their key and value are broadcast."""
        B, H, T, E = q.shape
        K = self.kv_heads
        q = q.reshape(B, K, H // K, T, E)
        k, v = (x.reshape(B, K, 1, T, E) for x in (k, v))
        mixed = scaled_dot_product(q, k, v, mask[..., None, :, :])  # (B, K, G, T, E)
        return mixed.reshape(B, H, T, E)
