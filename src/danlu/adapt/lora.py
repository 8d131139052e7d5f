"""Low-rank adapters beside frozen linears (LoRA, 2106.09685).

Shapes: ... any leading axes · I inputs · O outputs · R rank
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.linear import Linear, Multiplying
from danlu.nn.network import Network

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
DOWN, UP = "lora_down", "lora_up"


@dataclass(frozen=True)
class Lora:
    """Freeze the network and add to each linear named in `targets` a product of two thin ones, at first zero."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"rank must be a whole number >= 1; got {self.rank!r}")
        if type(self.alpha) not in (int, float) or not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be a number above 0; got {self.alpha!r}")
        listed = isinstance(self.targets, list | tuple) and self.targets
        if not listed or any(each not in TARGETS for each in self.targets):
            raise ValueError(f"targets must be a list of {', '.join(TARGETS)}; got {self.targets!r}")

    def __call__(self, network: Network, generator: torch.Generator) -> Network:
        """In place."""
        network.requires_grad_(False)
        for parent in list(network.core.modules()):
            for name, child in list(parent.named_children()):
                if name in self.targets and isinstance(child, nn.Linear):
                    setattr(parent, name, LoraLinear(child, self.rank, self.alpha / self.rank, generator))
        return network


class LoraLinear(Multiplying):
    """x weightᵀ + bias + scale · x downᵀ upᵀ; the names of the frozen tensors stay what they were."""

    def __init__(self, frozen: nn.Linear, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = frozen.weight, frozen.bias, scale
        down = torch.empty(rank, frozen.in_features, device=self.weight.device)
        self.lora_down = nn.Parameter(down.normal_(0, frozen.in_features**-0.5, generator=generator))
        self.lora_up = nn.Parameter(torch.zeros(frozen.out_features, rank, device=self.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        aside = F.linear(F.linear(x, self.lora_down), self.lora_up)
        return torch.add(self.multiplied(x, self.weight, self.bias), aside, alpha=self.scale)


def merge(network: Network) -> Network:
    """Fold every adapter into its linear, in place: the network is a plain one again."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLinear):
                setattr(parent, name, _folded(child))
    return network


def merged_state(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of `network` with its adapters as the state of the plain network; without adapters, as it is."""
    plain = {name: tensor for name, tensor in state.items() if not name.endswith((DOWN, UP))}
    for prefix, module in network.named_modules():
        if isinstance(module, LoraLinear):
            delta = state[f"{prefix}.{UP}"] @ state[f"{prefix}.{DOWN}"]
            weight = plain[f"{prefix}.weight"]
            plain[f"{prefix}.weight"] = weight + module.scale * delta.to(weight.dtype)
    return plain


@torch.no_grad()
def _folded(adapted: LoraLinear) -> Linear:
    outputs, inputs = adapted.weight.shape
    plain = Linear(inputs, outputs, adapted.bias is not None, device="meta")
    delta = adapted.scale * (adapted.lora_up @ adapted.lora_down)
    plain.weight = nn.Parameter(adapted.weight + delta.to(adapted.weight.dtype))
    plain.bias = adapted.bias
    return plain.requires_grad_(True)
