"""A GPT in today's form, that of Qwen3 (2505.09388): small enough to read, complete enough to train.

Shapes: B batch · T time · D width · V vocabulary · E head size
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from danlu.scratch.attention import GroupedQueryAttention, causal
from danlu.scratch.embedding import Embedding
from danlu.scratch.linear import Linear
from danlu.scratch.mlp import SwiGLU
from danlu.scratch.module import Module
from danlu.scratch.norms import RMSNorm
from danlu.scratch.positions import Rotary, Rotation
from danlu.scratch.tensor import Array, Tensor


@dataclass(frozen=True)
class Shape:
    """The sizes of a GPT."""

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    theta: float = 1e6  # of the rotary positions
    eps: float = 1e-6  # of the norms
    tied: bool = True  # the embedding's table is also the output's


class Block(Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): norms stand before, so that x itself passes untouched."""

    def __init__(self, shape: Shape, rng: np.random.Generator):
        self.norm1, self.norm2 = RMSNorm(shape.dim, shape.eps), RMSNorm(shape.dim, shape.eps)
        self.attention = GroupedQueryAttention(shape.dim, shape.heads, shape.kv_heads, shape.head_dim, rng)
        self.attention.q_norm.eps = self.attention.k_norm.eps = shape.eps
        self.mlp = SwiGLU(shape.dim, shape.hidden, rng)

    def forward(self, x: Tensor, turn: Rotation, mask: Array) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.norm1(x), turn, mask)
        return x + self.mlp(self.norm2(x))


class GPT(Module):
    """Token numbers to scores of the next token."""

    def __init__(self, shape: Shape, rng: np.random.Generator):
        self.embed = Embedding(shape.vocab, shape.dim, rng)
        self.blocks = [Block(shape, rng) for _ in range(shape.layers)]
        self.norm = RMSNorm(shape.dim, shape.eps)
        self.head = None if shape.tied else Linear(shape.dim, shape.vocab, rng, bias=False)
        self.rotary: Callable[[Array], Rotation] = Rotary(shape.head_dim, shape.theta)

    def forward(self, ids: Array, positions: Array | None = None, mask: Array | None = None) -> Tensor:
        """ids (B, T) -> logits (B, T, V).

        Several texts may share a row: positions (B, T) then restart with each, and mask (B, T, T) keeps them apart.
        """
        T = ids.shape[1]
        cos, sin = self.rotary(np.arange(T)[None] if positions is None else positions)  # (B, T, E/2)
        turn = cos[:, None], sin[:, None]  # (B, 1, T, E/2): the same for every head
        allowed = causal(T)[None, None] if mask is None else causal(T) & mask[:, None]  # (B, 1, T, T)
        x = self.embed(ids)  # (B, T, D)
        for block in self.blocks:
            x = block(x, turn, allowed)
        x = self.norm(x)
        return self.embed.scores(x) if self.head is None else self.head(x)
