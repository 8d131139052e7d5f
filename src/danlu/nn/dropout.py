"""Dropout that draws from a generator handed to it, so that a step can be repeated bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zeroes a share `p` of x and scales the rest by 1 / (1 - p), in training only (1207.0580)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    @property
    def active(self) -> bool:
        return self.training and self.p > 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same. Raises ValueError in training when no generator was given."""
        if not self.active:
            return x
        kept = self._keep(x).view(torch.uint8)  # one byte a place is kept; times a bool takes four times as long
        return (x * kept).mul_(1.0 / (1.0 - self.p))

    def factors(self, x: Tensor) -> Tensor:
        """What x is multiplied by, in its shape: 0 where it is dropped, else 1 / (1 - p)."""
        return self._keep(x).to(x.dtype).div_(1.0 - self.p)

    def _keep(self, x: Tensor) -> Tensor:
        """Where x stays. One draw of 64 bits decides four places: drawing is what dropout costs on a CPU."""
        if self.generator is None:
            raise ValueError("dropout has no generator: call use_generator(module, generator) first")
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        bits.random_(-(2**63), None, generator=self.generator)
        return (bits.view(torch.int16)[: x.numel()] >= round(self.p * 2**16) - 2**15).view(x.shape)


def use_generator(module: nn.Module, generator: torch.Generator) -> None:
    """Let every dropout inside `module` draw from `generator`; reseed that one object to repeat a step."""
    for part in module.modules():
        if isinstance(part, Dropout):
            part.generator = generator
