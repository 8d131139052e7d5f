"""What stands between linear layers, so that two of them are more than one: y = f(x), dx = G f'(x), G = dL/dy."""

from __future__ import annotations

import math

import numpy as np

from danlu.scratch.tensor import Tensor

_erf = np.vectorize(math.erf, otypes=[float])  # NumPy has none


def relu(x: Tensor) -> Tensor:
    """max(x, 0); its derivative is 1 where x > 0, else 0."""
    return Tensor(np.maximum(x.data, 0), (x, lambda g: g * (x.data > 0)))


def sigmoid(x: Tensor) -> Tensor:
    """σ(x) = 1 / (1 + e⁻ˣ); σ' = σ (1 - σ). Written with tanh, which overflows for no x."""
    s = 0.5 * (1 + np.tanh(0.5 * x.data))
    return Tensor(s, (x, lambda g: g * s * (1 - s)))


def tanh(x: Tensor) -> Tensor:
    """tanh' = 1 - tanh²."""
    t = np.tanh(x.data)
    return Tensor(t, (x, lambda g: g * (1 - t * t)))


def gelu(x: Tensor) -> Tensor:
    """x Φ(x), Φ the normal distribution: x times the chance to be larger than another (1606.08415).

    Φ(x) = (1 + erf(x / √2)) / 2, Φ'(x) = φ(x) = e^(-x²/2) / √(2π), so the derivative is Φ(x) + x φ(x).
    """
    below = 0.5 * (1 + _erf(x.data / math.sqrt(2))).astype(x.data.dtype)
    density = np.exp(-0.5 * x.data**2) / math.sqrt(2 * math.pi)
    return Tensor(x.data * below, (x, lambda g: g * (below + x.data * density)))


def gelu_tanh(x: Tensor) -> Tensor:
    """GPT-2's approximation of GELU: x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2."""
    return x * 0.5 * (1.0 + tanh((x + x**3 * 0.044715) * math.sqrt(2 / math.pi)))


def silu(x: Tensor) -> Tensor:
    """x σ(x), also called swish (1702.03118)."""
    return x * sigmoid(x)


def softmax(x: Tensor) -> Tensor:
    """pᵢ = e^xᵢ / Σⱼ e^xⱼ over the last axis: positive numbers that sum to 1. (..., C) -> (..., C).

    ∂pᵢ/∂xⱼ = pᵢ (1[i=j] - pⱼ), so dx = p (G - Σ G p). Subtracting the largest x changes no p and avoids e^1000.
    """
    e = np.exp(x.data - x.data.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return Tensor(p, (x, lambda g: p * (g - (g * p).sum(-1, keepdims=True))))
