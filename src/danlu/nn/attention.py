"""Attention: the one forward of every layer of every model.

Shapes: B batch · T queries · S keys · D width · H heads · K key/value heads · G = H/K · E head_dim
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from danlu.nn.config import TransformerConfig
from danlu.nn.dropout import Dropout
from danlu.nn.flex import flex
from danlu.nn.linear import Linear
from danlu.nn.norm import Norm
from danlu.nn.positions import Rotation, rotate

if TYPE_CHECKING:
    from danlu.nn.cache import CacheRows


@dataclass(frozen=True)
class View:
    """What a layer sees: made once per forward and shared by all layers with the same window."""

    form: str  # "sdpa" | "written" | "flex"
    bias: Tensor | None = None  # additive, broadcastable to (B, H, T, S); None = everyone sees everyone
    causal: bool = False  # `bias` says no more than that a token sees itself and its past
    rotation: Rotation | None = None
    blocks: Any = None  # what `bias` says, by blocks, where the form is "flex"


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
        q = self._heads(self.q(x), self.heads, self.q_norm, view.rotation)
        if cache is not None and memory is not None:
            k, v = cache.across(layer, lambda: self._keys_and_values(memory, view.rotation))
        else:
            k, v = self._keys_and_values(x if memory is None else memory, view.rotation)
        if cache is not None and memory is None:
            k, v = cache.extend(layer, k, v)
        form = "written" if self.dropout.active else view.form
        mixed = _FORMS[form](q, k, v, view, self.scale, self.dropout)  # (B, H, T, E)
        return self.o(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, view: View) -> Tensor:
        """x (B, T, D) -> (B, H, T, T): the share of each key in what a query takes, which `forward` does not keep."""
        q = self._heads(self.q(x), self.heads, self.q_norm, view.rotation)
        k = self._heads(self.k(x), self.kv_heads, self.k_norm, view.rotation)
        scores = q @ k.repeat_interleave(self.heads // self.kv_heads, 1).mT * self.scale
        return (scores if view.bias is None else scores + view.bias).softmax(-1)

    def _keys_and_values(self, source: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """source (B, S, D or M) -> two of (B, K, S, E)."""
        k = self._heads(self.k(source), self.kv_heads, self.k_norm, rotation)
        return k, self._heads(self.v(source), self.kv_heads, None, None)

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
    """
    (B, H, T, E), (K, S) = q.shape, k.shape[1:3]
    bias = None if view.bias is None else view.bias.expand(B, H, T, S)
    kept = dropout.factors(q.new_empty(B * K, H // K * T, S)) if dropout.active else None
    rows = (q.reshape(B * K, -1, E), k.reshape(B * K, S, E), v.reshape(B * K, S, E))
    return Written.apply(*rows, bias, scale, kept).view(B, H, T, E)


_FORMS = {"sdpa": sdpa, "written": written, "flex": flex}


class Written(torch.autograd.Function):
    """o = (softmax(a) ∘ kept) v of the scores a = scale q kᵀ + bias, with one buffer of scores each way.

    With p = softmax(a): dv = (p ∘ kept)ᵀ do; dp = (do vᵀ) ∘ kept; da = p ∘ (dp - rowsum(p ∘ dp)); dq = scale da k;
    dk = scale daᵀ q; dbias = da, summed where bias was repeated. torch's softmax of bf16 computes in fp32, rounds once.
    Shapes: q, o (B K, G T, E) · k, v (B K, S, E) · bias (B, H, T, S) · kept (B K, G T, S), 0 or 1 / (1 - dropout).
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, kept: Tensor | None
    ) -> Tensor:
        shape = (*q.shape[:2], k.shape[1])
        scores = q.new_empty(shape) if bias is None else bias.to(q.dtype).clone(memory_format=torch.contiguous_format)
        scores = scores.view(shape).baddbmm_(q, k.transpose(1, 2), beta=float(bias is not None), alpha=scale)
        share = torch.softmax(scores, -1, out=scores)
        ctx.save_for_backward(q, k, v, share, kept)
        ctx.scale, ctx.shape = scale, None if bias is None else bias.shape
        return torch.bmm(share if kept is None else share * kept, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, share, kept = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_v = torch.bmm((share if kept is None else share * kept).transpose(1, 2), grad)
        d_share = torch.bmm(grad, v.transpose(1, 2))
        if kept is not None:
            d_share.mul_(kept)
        d_scores = torch._softmax_backward_data(d_share, share, -1, share.dtype, grad_input=d_share)
        d_q = torch.baddbmm(q, d_scores, k, beta=0.0, alpha=ctx.scale)
        d_k = torch.baddbmm(k, d_scores.transpose(1, 2), q, beta=0.0, alpha=ctx.scale)
        d_bias = d_scores.view(ctx.shape) if ctx.needs_input_grad[3] else None
        return d_q, d_k, d_v, d_bias, None, None
