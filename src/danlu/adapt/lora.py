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

from danlu.adapt.graft import LINEARS, Grown, freeze, graft, linears
from danlu.nn.network import Network


@dataclass(frozen=True)
class Lora:
    """Freeze the network and add to each linear named in `targets` a product of two thin ones, at first zero."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = LINEARS

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"rank must be a whole number >= 1; got {self.rank!r}")
        if type(self.alpha) not in (int, float) or not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be a number above 0; got {self.alpha!r}")
        listed = isinstance(self.targets, list | tuple) and self.targets
        if not listed or any(each not in LINEARS for each in self.targets):
            raise ValueError(f"targets must be a list of {', '.join(LINEARS)}; got {self.targets!r}")

    def __call__(self, network: Network, generator: torch.Generator) -> Network:
        """In place."""
        for parent, name, layer in linears(network, self.targets):
            setattr(parent, name, self.beside(layer, generator))
        freeze(network)
        return network

    def beside(self, layer: nn.Module, generator: torch.Generator) -> LowRank:
        """The layer with its adapter."""
        return graft(LowRank, layer).grow(self.rank, self.alpha / self.rank, generator)


class LowRank(Grown):
    """x weightᵀ + bias + scale · x downᵀ upᵀ; the names of the frozen tensors stay what they were."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    lora_down: Tensor
    lora_up: Tensor

    def grow(self, rank: int, scale: float, generator: torch.Generator) -> LowRank:
        """Add the two thin matrices: down (R, I) normal with std 1/sqrt(I), up (O, R) zero."""
        (outputs, inputs), like = self.weight.shape, self.weight
        down = torch.empty(rank, inputs).normal_(0, inputs**-0.5, generator=generator)
        self.scale, self.lora_down = scale, nn.Parameter(down.to(like.device))
        self.lora_up = nn.Parameter(torch.zeros(outputs, rank, device=like.device))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return torch.add(super().forward(x), self.aside(x), alpha=self.scale)

    def aside(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O): x downᵀ upᵀ."""
        return F.linear(F.linear(x, self.lora_down), self.lora_up)

    def folded(self, weight: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        """The one weight (O, I) that does the same; `own` holds what was grown, by name."""
        return weight + self.scale * (own["lora_up"] @ own["lora_down"])
