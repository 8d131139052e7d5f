"""How wrong the answers are, as one number to make small.

Shapes: N examples · C classes
"""

from __future__ import annotations

import numpy as np

from danlu.scratch.tensor import Array, Tensor

IGNORE = -100  # the target of an example that does not count


def mse(predicted: Tensor, target: Array) -> Tensor:
    """Mean squared error: (1/n) Σ (ŷ - y)², whose gradient is (2/n)(ŷ - y); n counts every number, not every row."""
    return ((predicted - target) ** 2).mean()


def cross_entropy(logits: Tensor, target: Array) -> Tensor:
    """Mean of -log softmax(logits)[target], in nats: how surprised the model is by the right answer.

    logits (N, C), target (N,) of class numbers. The gradient is (p - onehot) / n: what was said minus what is true.
    -log p = log Σ e^x - x[target] is computed from x less its largest, so that nothing over- or underflows.
    """
    rows = np.flatnonzero(target != IGNORE)  # (n,)
    shifted = logits.data - logits.data.max(-1, keepdims=True)  # (N, C)
    log_sum = np.log(np.exp(shifted).sum(-1))  # (N,)
    right = rows, target[rows]

    def pull(g: Array) -> Array:
        wrong = np.zeros_like(shifted)
        wrong[rows] = np.exp(shifted[rows] - log_sum[rows, None])  # p
        wrong[right] -= 1.0  # p - onehot
        return g * wrong / len(rows)

    return Tensor((log_sum[rows] - shifted[right]).mean(), (logits, pull))
