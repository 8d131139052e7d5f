"""Model to model: what is done to a finished network from outside, never inside a layer.

`tune` is the short form; it resolves to a list of adapters: "head" -> freeze all but the head, "last-2" -> freeze all but
the last two blocks, "lora" -> low-rank adapters. An adapter is the file of its `kind`.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

KINDS = ("freeze", "lora")


def short(tune: str) -> list[dict[str, Any]]:
    """The adapters behind full, head, last-N and lora."""
    if tune == "full":
        return []
    if tune == "lora":
        return [{"kind": "lora"}]
    return [{"kind": "freeze", "keep_last": 0 if tune == "head" else int(tune.removeprefix("last-"))}]


def apply(net: nn.Module, adapters: Sequence[Mapping[str, Any]], seed: int) -> nn.Module:
    """The network with the adapters applied in order.

    Raises:
        UserError: E118, no such adapter, or an option that it does not have.
    """
    from danlu.errors import UserError
    from danlu.randomness import generator

    for number, adapter in enumerate(adapters):
        options = {name: value for name, value in adapter.items() if name != "kind"}
        if adapter.get("kind") not in KINDS:
            raise UserError("E118", found=adapter.get("kind"), valid=", ".join(KINDS))
        module = importlib.import_module(f"danlu.adapt.{adapter['kind']}")
        try:
            net = module.adapt(net, generator=generator(seed, "adapt", number), **options)
        except TypeError as error:
            raise UserError("E118", found=dict(adapter), valid=str(error)) from error
    return net
