"""Attention: the one forward of every layer of every model.

Shapes: B batch · T queries · S keys · D width · H heads · K key/value heads · G = H/K · E head_dim
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.config import TransformerConfig
from danlu.nn.dropout import Dropout
from danlu.nn.linear import Linear
from danlu.nn.norm import Norm
from danlu.nn.positions import Rotation, rotate

if TYPE_CHECKING:
    from danlu.nn.cache import CacheRows


@dataclass(frozen=True)
class View:
    """What a layer sees: made once per forward and shared by all layers with the same window."""

    form: str  # "sdpa" | "written"
    bias: Tensor | None = None  # additive, broadcastable to (B, H, T, S); None = everyone sees everyone
    causal: bool = False  # `bias` says no more than that a token sees itself and its past
    rotation: Rotation | None = None


class Attention(nn.Module):
    """Multi-head attention (1706.03762) with grouped queries; `memory` > 0: keys and values come from elsewhere."""

    def __init__(self, config: TransformerConfig, memory: int = 0) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.scale = config.heads, config.kv_heads, config.score_scale
        inner, inner_kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        source, bias = memory or config.dim, config.bias != "none"
        self.q = Linear(config.dim, inner, bias)
        self.k = Linear(source, inner_kv, bias)
        self.v = Linear(source, inner_kv, bias)
        self.o = Linear(inner, config.dim, config.bias == "all")
        normed = config.qk_norm == "head" and not memory
        self.q_norm = Norm(config.head_dim, config.norm, config.norm_eps) if normed else None
        self.k_norm = Norm(config.head_dim, config.norm, config.norm_eps) if normed else None
        self.dropout = Dropout(config.attention_dropout)

    def forward(
        self, x: Tensor, view: View, layer: int = 0, cache: CacheRows | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D), memory (B, S, M) -> (B, T, D)."""
        source = x if memory is None else memory
        q = self._heads(self.q(x), self.heads, self.q_norm, view.rotation)
        k = self._heads(self.k(source), self.kv_heads, self.k_norm, view.rotation)
        v = self._heads(self.v(source), self.kv_heads, None, None)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        attend = written if view.form == "written" or self.dropout.active else sdpa
        mixed = attend(q, k, v, view, self.scale, self.dropout)  # (B, H, T, E)
        return self.o(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, heads: int, norm: Norm | None, rotation: Rotation | None) -> Tensor:
        """(B, T, heads E) -> (B, heads, T, E), normalised and turned to its position where asked."""
        x = x.unflatten(-1, (heads, -1))
        if norm is not None:
            x = norm(x)
        return x.transpose(1, 2) if rotation is None else rotate(x, rotation)


def sdpa(q: Tensor, k: Tensor, v: Tensor, view: View, scale: float, dropout: Dropout) -> Tensor:
    """torch's fused attention."""
    bias = None if view.causal else view.bias
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, is_causal=view.causal, scale=scale, enable_gqa=grouped
    )


def written(q: Tensor, k: Tensor, v: Tensor, view: View, scale: float, dropout: Dropout) -> Tensor:
    """softmax(q kᵀ · scale + bias) v in the compute dtype: one product over all heads, faster than sdpa for short T.

    The queries of a group stand below each other as rows, so shared keys and values are never repeated.
    torch's softmax of bf16 computes in fp32 and rounds once.
    """
    (B, H, T, E), (K, S) = q.shape, k.shape[1:3]
    q = (q * scale).reshape(B * K, -1, E)  # (B K, G T, E)
    scores = torch.bmm(q, k.reshape(B * K, S, E).transpose(1, 2))
    if view.bias is not None:
        scores = (scores.view(B, H, T, S) + view.bias).view(scores.shape)
    weights = dropout(scores.softmax(-1))
    return torch.bmm(weights, v.reshape(B * K, S, E)).view(B, H, T, E)
