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

KINDS = ("freeze", "lora", "dora", "prefix", "bottleneck", "bitfit", "nf4")  # those that a recipe may name in `adapt`
SHORT: dict[str, list[dict[str, Any]]] = {
    "full": [],
    "head": [{"kind": "freeze", "keep_last": 0}],
    "lora": [{"kind": "lora"}],
    "dora": [{"kind": "dora"}],
    "qlora": [{"kind": "nf4"}, {"kind": "lora"}],
    "prefix": [{"kind": "prefix"}],
    "adapter": [{"kind": "bottleneck"}],
    "bitfit": [{"kind": "bitfit"}],
}


def short(tune: str) -> list[dict[str, Any]]:
    """The long form of `tune`: one of SHORT, or last-N."""
    if tune in SHORT:
        return [dict(entry) for entry in SHORT[tune]]
    return [{"kind": "freeze", "keep_last": int(tune.removeprefix("last-"))}]


def apply(network: Network, adapters: Sequence[Mapping[str, Any]], seed: int) -> Network:
    """Apply the adapters of a recipe in order, in place.

    Raises:
        UserError: E120, an entry names no kind or no option that exists, or they do not go together.
    """
    for index, entry in enumerate(adapters):
        try:
            network = adapter(entry)(network, generator(seed, "adapt", index))
        except ValueError as error:
            raise UserError("E120", reason=f"{entry.get('kind')}: {error}") from error
    return network


def check_kept(adapters: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError E331 where the folder of another library could not hold what these adapters add."""
    kinds = {str(entry.get("kind")) for entry in adapters}
    if not kinds & {"lora", "dora", "prefix"} or "bottleneck" in kinds:
        raise UserError("E331", reason=", ".join(sorted(kinds)) or "tune = full")


def adapter(entry: Mapping[str, Any]) -> Adapter:
    """One entry of the list as a function from network to network.

    Raises:
        UserError: E120.
    """
    import importlib

    kind, options = entry.get("kind"), {name: value for name, value in entry.items() if name != "kind"}
    if kind not in KINDS:
        raise UserError("E120", reason=f"kind = {kind!r}; {' | '.join(KINDS)}")
    made = getattr(importlib.import_module(f"danlu.adapt.{kind}"), str(kind).capitalize())
    try:
        return made(**options)
    except (TypeError, ValueError) as error:
        raise UserError("E120", reason=f"{kind}: {error}") from error
