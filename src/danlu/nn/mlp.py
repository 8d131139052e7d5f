"""The position-wise feed-forward layer: plain or gated.

Shapes: B batch · T time · D width · H hidden width
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.linear import Linear


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's sigmoid approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GPT-2's tanh approximation of GELU (1606.08415)."""
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """Squared ReLU (2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": relu2,
    "silu": F.silu,
}
GATES: dict[str, Callable[[Tensor], Tensor]] = {  # 2002.05202
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": gelu_tanh,
    "reglu": F.relu,
}
KINDS = (*ACTIVATIONS, *GATES)


class Mlp(nn.Module):
    """down(act(up x)), or down(act(gate x) · up x) when `kind` is gated."""

    def __init__(self, dim: int, hidden: int, kind: str, bias: bool) -> None:
        super().__init__()
        self.gate = Linear(dim, hidden, bias) if kind in GATES else None
        self.up = Linear(dim, hidden, bias)
        self.down = Linear(hidden, dim, bias)
        self.activation = GATES.get(kind) or ACTIVATIONS[kind]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))
