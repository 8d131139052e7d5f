"""LoRA of a weight's direction, and its length learned apart (DoRA, 2402.09353).

Shapes: ... any leading axes · I inputs · O outputs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danlu.adapt.graft import graft
from danlu.adapt.lora import Lora, LowRank


@dataclass(frozen=True)
class Dora(Lora):
    """As Lora; each output's row of weights is then brought to a length that is learned, at first its own."""

    def beside(self, layer: nn.Module, generator: torch.Generator) -> LowRank:
        made = graft(Directed, layer)
        made.grow(self.rank, self.alpha / self.rank, generator)
        made.lora_magnitude = nn.Parameter(_lengths(made.weight.detach()))
        return made


class Directed(LowRank):
    """m / |V| · x Vᵀ + bias, where V = weight + scale · up down and |V| (O,) are the lengths of its rows.

    As in the paper (section 4.3) no gradient goes through |V|.
    """

    lora_magnitude: Tensor  # (O,)
    times: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        with torch.no_grad():
            wide = torch.promote_types(self.weight.dtype, torch.float32)
            up, down = self.lora_up.to(wide), self.lora_down.to(wide)
            lengths = _lengths(torch.addmm(self.weight.to(wide), up, down, alpha=self.scale))
        y = torch.add(self.times(x), self.aside(x), alpha=self.scale) * (self.lora_magnitude / lengths).to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def folded(self, weight: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        direction = super().folded(weight, own)
        return direction * (own["lora_magnitude"] / _lengths(direction))[:, None]


def _lengths(weight: Tensor) -> Tensor:
    """(O, I) -> (O,)."""
    return torch.linalg.vector_norm(weight, dim=1)
