"""Small two-layer networks behind each sub-layer (adapters, Houlsby et al. 2019, 1902.00751).

Shapes: ... any leading axes · D width of the stack · M width of the bottleneck
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.adapt.graft import Grown, freeze, graft, linears, stacks
from danlu.nn.linear import linear
from danlu.nn.network import Network
from danlu.nn.norm import Norm

ENDS = ("o", "down")  # what a sub-layer gives to the sum is what these give


@dataclass(frozen=True)
class Bottleneck:
    """Freeze the network but its norms, and let each sub-layer's output h pass h + up(gelu(down h)), at first h."""

    width: int = 64

    def __post_init__(self) -> None:
        if type(self.width) is not int or self.width < 1:
            raise ValueError(f"width must be a whole number >= 1; got {self.width!r}")

    def __call__(self, network: Network, generator: torch.Generator) -> Network:
        """In place."""
        for parent, name, layer in linears(network, ENDS):
            setattr(parent, name, graft(Narrowed, layer).grow(self.width, generator))
        freeze(network)
        for module in (part for stack in stacks(network) for part in stack.modules()):
            if isinstance(module, Norm):  # "we also train new layer normalization parameters" (section 2.1)
                module.requires_grad_(True)
        return network


class Narrowed(Grown):
    """A linear, and the bottleneck behind it."""

    weight: Tensor
    adapter_down: Tensor
    adapter_down_bias: Tensor
    adapter_up: Tensor
    adapter_up_bias: Tensor

    def grow(self, width: int, generator: torch.Generator) -> Narrowed:
        """Add the bottleneck: down (M, D) normal with std 1/sqrt(D), up (D, M) zero, and their biases zero."""
        dim, device = self.weight.shape[0], self.weight.device
        down = torch.empty(width, dim).normal_(0, dim**-0.5, generator=generator).to(device)
        self.adapter_down, self.adapter_down_bias = nn.Parameter(down), nn.Parameter(torch.zeros(width, device=device))
        self.adapter_up = nn.Parameter(torch.zeros(dim, width, device=device))
        self.adapter_up_bias = nn.Parameter(torch.zeros(dim, device=device))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., D)."""
        h: Tensor = super().forward(x)
        narrow = F.gelu(linear(h, self.adapter_down, self.adapter_down_bias))
        return h + linear(narrow, self.adapter_up, self.adapter_up_bias)
