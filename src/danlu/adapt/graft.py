"""What adapters share: a network's stacks, what of it goes on learning, how a layer gets something beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from torch import nn

from danlu.nn.heads import Label
from danlu.nn.network import Network
from danlu.nn.transformer import Transformer

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")  # of a block
GROWN = ("lora_down", "lora_up", "lora_magnitude", "adapter_", "prefix_")  # how the names of what adapters add begin
Kind = TypeVar("Kind", bound=nn.Module)


class Grown(nn.Module):
    """What is put before a layer's own class to be that layer and something beside it."""


def stacks(network: Network) -> list[Transformer]:
    """Every stack of a network: an encoder and a decoder are two."""
    return [module for module in network.modules() if isinstance(module, Transformer)]


def linears(network: Network, targets: Sequence[str] = LINEARS) -> Iterator[tuple[nn.Module, str, Any]]:
    """(parent, name, layer) of every linear of the blocks that `targets` names."""
    for stack in stacks(network):
        for parent in list(stack.blocks.modules()):
            for name, child in list(parent.named_children()):
                if name in targets and hasattr(child, "weight"):
                    yield parent, name, child


def freeze(network: Network) -> None:
    """Let nothing learn but what adapters have added, and a head of labels: that of a new task is always learned."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2].startswith(GROWN))
    if isinstance(network.head, Label):
        network.head.requires_grad_(True)


def graft(kind: type[Kind], layer: nn.Module) -> Kind:
    """The same layer, with the same tensors under the same names, as one that is `kind` first.

    Raises:
        ValueError: it has something beside it already.
    """
    if isinstance(layer, Grown):
        raise ValueError("a layer takes one adapter")
    crossed: Any = _crossed  # which knows each pair once
    made: Kind = object.__new__(crossed(kind, type(layer)))
    made.__dict__ = layer.__dict__
    return made


@cache
def _crossed(kind: Any, base: Any) -> Any:
    return type(f"{kind.__name__}{base.__name__}", (kind, base), {})
