"""Model to model: what is done to a finished network from outside, never inside a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from danlu.errors import UserError
from danlu.randomness import generator

if TYPE_CHECKING:
    import torch

    from danlu.nn.network import Network

    Adapter = Callable[[Network, torch.Generator], Network]

KINDS = ("freeze", "lora")  # those that a recipe may name in `adapt`


def short(tune: str) -> list[dict[str, Any]]:
    """The long form of `tune`: full, head, last-N or lora."""
    if tune == "full":
        return []
    if tune == "lora":
        return [{"kind": "lora"}]
    return [{"kind": "freeze", "keep_last": 0 if tune == "head" else int(tune.removeprefix("last-"))}]


def apply(network: Network, adapters: Sequence[Mapping[str, Any]], seed: int) -> Network:
    """Apply the adapters of a recipe in order, in place.

    Raises:
        UserError: E120, an entry names no kind or no option that exists.
    """
    for index, entry in enumerate(adapters):
        network = adapter(entry)(network, generator(seed, "adapt", index))
    return network


def adapter(entry: Mapping[str, Any]) -> Adapter:
    """One entry of the list as a function from network to network."""
    import importlib

    kind, options = entry.get("kind"), {name: value for name, value in entry.items() if name != "kind"}
    if kind not in KINDS:
        raise UserError("E120", reason=f"kind = {kind!r}; {' | '.join(KINDS)}")
    made = getattr(importlib.import_module(f"danlu.adapt.{kind}"), str(kind).capitalize())
    try:
        return made(**options)
    except (TypeError, ValueError) as error:
        raise UserError("E120", reason=f"{kind}: {error}") from error
