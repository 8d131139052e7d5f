"""Tune only the biases (BitFit, 2106.10199)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from danlu.adapt.graft import freeze
from danlu.nn.network import Network


@dataclass(frozen=True)
class Bitfit:
    """Freeze all but the biases, those of norms included; where a form has none (Qwen3), the weights of its norms.

    These are the only other vectors of a network, and what the biases of BERT's norms stand beside.
    """

    def __call__(self, network: Network, generator: torch.Generator) -> Network:
        """In place; `generator` is not used."""
        freeze(network)
        inside = {name: p for name, p in network.named_parameters() if not name.startswith("head.") and p.ndim == 1}
        biases = [p for name, p in inside.items() if name.endswith(".bias")]
        for parameter in biases or inside.values():
            parameter.requires_grad_(True)
        return network
