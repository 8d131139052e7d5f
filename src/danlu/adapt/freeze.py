"""Tune only the end of a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from danlu.nn.heads import Vocabulary
from danlu.nn.network import Network


@dataclass(frozen=True)
class Freeze:
    """Freeze all but the last `keep_last` blocks, the final norm and the head.

    A table tied to the embedding counts as the head only when nothing else is left to tune (keep_last = 0).
    """

    keep_last: int = 0

    def __post_init__(self) -> None:
        if type(self.keep_last) is not int or self.keep_last < 0:
            raise ValueError(f"keep_last must be a whole number >= 0; got {self.keep_last!r}")

    def __call__(self, network: Network, generator: torch.Generator) -> Network:
        """In place; `generator` is not used."""
        network.requires_grad_(False)
        kept = list(network.core.blocks)[-self.keep_last :] if self.keep_last else []
        for module in (*kept, network.core.norm, network.head):
            if module is not None:
                module.requires_grad_(True)
        if not self.keep_last and isinstance(network.head, Vocabulary):
            network.head.weight.requires_grad_(True)
        return network
