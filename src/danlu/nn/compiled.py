"""A block as one compiled program: torch.compile of its forward, from which comes its backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn


@cache
def program() -> Callable[..., Tensor]:
    """block, inputs -> block(inputs), compiled once for every form of block and input; equal layers share it."""
    compiled: Callable[..., Tensor] = torch.compile(_forward, dynamic=False)
    return compiled


def _forward(block: nn.Module, *inputs: object) -> Tensor:
    made: Tensor = block(*inputs)
    return made
