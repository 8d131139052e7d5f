"""Fold adapters into the weights beside which they stand, where that gives the same network; name those that stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from danlu.adapt.bottleneck import Narrowed
from danlu.adapt.lora import LowRank
from danlu.adapt.nf4 import Nf4Linear
from danlu.adapt.prefix import Prefixed
from danlu.nn.linear import Linear
from danlu.nn.network import Network

_CODED = ("codes", "scales", "outer")


def merge(network: Network) -> Network:
    """Fold LoRA and DoRA into their linears, and widen 4-bit weights, in place: each is a plain linear again."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRank | Nf4Linear):
                setattr(parent, name, _plain(child))
    return network


def merged_state(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of `network` as that of the network that `merge` makes of it; without adapters, as it is."""
    folded = dict(state)
    for prefix, layer in _foldable(network):
        own = {name: folded.pop(f"{prefix}.{name}") for name in _own(layer)}
        weight = layer.weight if isinstance(layer, Nf4Linear) else folded[f"{prefix}.weight"]
        folded[f"{prefix}.weight"] = layer.folded(weight, own) if isinstance(layer, LowRank) else weight
    return folded


def staying(network: Network) -> dict[str, list[dict[str, Any]]]:
    """{"adapters": those that no plain weights can hold, as the entries that make them}; {} where there are none."""
    narrow = {part.adapter_down.shape[0] for part in network.modules() if isinstance(part, Narrowed)}
    ahead = {part.prefix_keys.shape[1] for part in network.modules() if isinstance(part, Prefixed)}
    widths = [{"kind": "bottleneck", "width": width} for width in narrow]
    entries = widths + [{"kind": "prefix", "tokens": tokens} for tokens in ahead]
    return {"adapters": entries} if entries else {}


def _foldable(network: nn.Module) -> Iterator[tuple[str, Any]]:
    for prefix, module in network.named_modules():
        if isinstance(module, LowRank | Nf4Linear):
            yield prefix, module


def _own(layer: nn.Module) -> list[str]:
    """The names of what a plain linear does not have."""
    named = [*dict(layer.named_parameters(recurse=False)), *dict(layer.named_buffers(recurse=False))]
    return [name for name in named if name.startswith("lora_") or name in _CODED]


@torch.no_grad()
def _plain(layer: Any) -> Linear:
    """One layer folded, all of it to be learned again."""
    weight = layer.weight
    if isinstance(layer, LowRank):
        weight = layer.folded(weight, dict(layer.named_parameters(recurse=False)))
    made = Linear(weight.shape[1], weight.shape[0], layer.bias is not None, device="meta")
    made.weight, made.bias = nn.Parameter(weight), layer.bias
    return made.requires_grad_(True)
