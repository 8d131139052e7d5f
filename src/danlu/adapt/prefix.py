"""Learned keys and values ahead of each layer's own (prefix tuning, Li & Liang 2021, 2101.00190).

Shapes: B batch · T queries · S keys · P prefix · D width · K key/value heads · E head_dim
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.adapt.graft import Grown, freeze, graft, stacks
from danlu.nn.attention import View
from danlu.nn.cache import Cache, CacheRows
from danlu.nn.network import EncoderDecoder, Network
from danlu.nn.transformer import Transformer

FIRST_STD = 0.02


@dataclass(frozen=True)
class Prefix:
    """Freeze the network and let every self-attention see `tokens` more keys and values, ahead of all that it reads.

    They begin as those that the network itself computes of tokens drawn at random (the paper's section 7.4: activations
    of real words). No position of the text moves.
    """

    tokens: int = 16

    def __post_init__(self) -> None:
        if type(self.tokens) is not int or self.tokens < 1:
            raise ValueError(f"tokens must be a whole number >= 1; got {self.tokens!r}")

    def __call__(self, network: Network, generator: torch.Generator) -> Network:
        """In place."""
        for stack in stacks(network):
            heard = _heard(network, self.tokens, generator) if stack is network.core else None
            for layer, block in enumerate(stack.blocks):
                part: Any = block.attention
                first = _drawn(stack, self.tokens, generator) if heard is None else heard[layer]
                part.inner = graft(Prefixed, part.inner).grow(*first)
        freeze(network)
        return network


Pair = tuple[Tensor, Tensor]  # keys and values (K, P, E)


def _drawn(stack: Transformer, tokens: int, generator: torch.Generator) -> Pair:
    """A prefix that says little."""
    shape = (stack.config.kv_heads, tokens, stack.config.head_dim)
    keys, values = (torch.empty(shape).normal_(0, FIRST_STD, generator=generator) for _ in range(2))
    return keys, values


@torch.no_grad()
def _heard(network: Network, tokens: int, generator: torch.Generator) -> list[Pair] | None:
    """What each layer makes of tokens drawn at random; None where a network reads something else as well."""
    config, embed = network.core.config, network.embed
    rows = getattr(embed, "tokens", None)
    if isinstance(network, EncoderDecoder) or rows is None or rows.weight.is_meta:
        return None
    limit = getattr(embed.config, "positions", 0) or tokens
    ids = torch.randint(rows.weight.shape[0], (1, tokens), generator=generator)
    cache, training = Cache(config, 1, tokens, network.dtype, network.device), network.training
    places = torch.arange(tokens).clamp(max=limit - 1)[None]
    network.eval().states({"input_ids": ids.to(network.device), "position_ids": places}, cache)
    network.train(training)
    return [
        (keys[0, :, :tokens].float(), values[0, :, :tokens].float())
        for keys, values in zip(cache.keys, cache.values, strict=True)
    ]


class Prefixed(Grown):
    """Self-attention with a prefix: each query sees it, whatever else it may see."""

    prefix_keys: Tensor  # (K, P, E)
    prefix_values: Tensor

    def grow(self, keys: Tensor, values: Tensor) -> Prefixed:
        device = next(self.parameters()).device
        self.prefix_keys, self.prefix_values = nn.Parameter(keys.to(device)), nn.Parameter(values.to(device))
        return self

    def forward(
        self, x: Tensor, view: View, layer: int = 0, cache: CacheRows | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        tokens = self.prefix_keys.shape[1]
        bias = None if view.bias is None else F.pad(view.bias, (tokens, 0))
        longer: Any = Ahead(self, cache)
        y: Tensor = super().forward(x, replace(view, bias=bias, causal=False), layer, longer, memory)
        return y


class Ahead:
    """A layer's past with the prefix before it."""

    def __init__(self, prefix: Prefixed, cache: CacheRows | None) -> None:
        self.prefix, self.cache = prefix, cache

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v (B, K, T, E) -> prefix and past (B, K, P + S, E)."""
        if self.cache is not None:
            k, v = self.cache.extend(layer, k, v)
        return _before(self.prefix.prefix_keys, k), _before(self.prefix.prefix_values, v)


def _before(prefix: Tensor, own: Tensor) -> Tensor:
    return torch.cat([prefix.to(own.dtype).expand(len(own), -1, -1, -1), own], 2)
