"""The Transformer: one stack of equal blocks, encoder or decoder by its config.

Shapes: B batch · T queries · S keys · D width · H heads · M width of the memory
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from danlu.nn.attention import Attention, View
from danlu.nn.compiled import program
from danlu.nn.config import TransformerConfig
from danlu.nn.dropout import Dropout
from danlu.nn.flex import blocks
from danlu.nn.masks import additive, both, reach
from danlu.nn.mlp import Mlp
from danlu.nn.norm import Norm
from danlu.nn.positions import Buckets, Distances, Rotary, Rotation, inverse_frequencies, magnitude, rotation
from danlu.nn.recompute import recomputed

if TYPE_CHECKING:
    from danlu.nn.cache import CacheRows


class Residual(nn.Module):
    """x + inner(x), with the norm where the placement says: before, after the sum, or before and after `inner`."""

    def __init__(self, inner: nn.Module, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = inner
        self.placement = config.placement
        self.norm = Norm(config.dim, config.norm, config.norm_eps)
        self.after = Norm(config.dim, config.norm, config.norm_eps) if config.placement == "sandwich" else None
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, *context: object) -> Tensor:
        """(B, T, D) -> (B, T, D); `context` is handed on to `inner`."""
        if self.placement == "post":
            return self.norm(x + self.dropout(self.inner(x, *context)))
        y = self.inner(self.norm(x), *context)
        if self.after is not None:
            y = self.after(y)
        return x + self.dropout(y)


class Block(nn.Module):
    """Attention, attention to the memory, MLP; each of the first two where there is one."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Residual(Attention(config), config) if config.heads else None
        self.across = Residual(Attention(config, config.memory), config) if config.memory else None
        self.mlp = Residual(Mlp(config.dim, config.hidden, config.mlp, config.bias == "all"), config)

    def forward(
        self, x: Tensor, view: View, layer: int, cache: CacheRows | None, memory: Tensor | None, across: View
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.attention is not None:
            x = self.attention(x, view, layer, cache)
        if self.across is not None:
            x = self.across(x, across, layer, cache, memory)
        return self.mlp(x)


class Transformer(nn.Module):
    """A stack of blocks. `attention_form` ("sdpa" | "written" | "flex") chooses how attention is computed, not what.

    `checkpointing` ("none" | "blocks") chooses what backward finds kept: all, or only what goes into each block;
    `compiled` lets the blocks run as one compiled program where gradients are wanted.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.attention_form, self.checkpointing, self.compiled = "sdpa", "none", False
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = None if config.placement == "post" else Norm(config.dim, config.norm, config.norm_eps)
        self.distances = _distances(config)
        self._frequencies = _frequencies(config)

    def forward(self, x: Tensor, **seen: Any) -> Tensor:
        """x (B, T, D) -> (B, T, D); `seen` as of `passed`."""
        (last,) = deque(self.passed(x, **seen), maxlen=1)
        return self.finished(last)

    def finished(self, x: Tensor) -> Tensor:
        """States after a block -> as they go out (B, T, D)."""
        return x if self.norm is None else self.norm(x)

    def passed(
        self,
        x: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: CacheRows | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """x (B, T, D) as it goes into the first block, then what each block makes of it, without the final norm.

        positions (B, T) or None for 0, 1, 2 ...; mask bool (B, 1, T, S), True = may attend, None = config.mask alone;
        memory (B, S, M) with memory_mask bool (B, 1, 1 or T, S). With a cache, the keys are its slots' whole past.
        """
        x = self.dropout(x)
        yield x
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
        views = {window: self._view(window, x, positions, mask, cache) for window in set(self.config.windows)}
        across = self._seen(memory_mask, x, None)
        for layer, (block, window) in enumerate(zip(self.blocks, self.config.windows, strict=True)):
            place = 0 if cache is None else layer  # a program is not compiled anew for a number that nobody reads
            x = self._through(block, x, views[window], place, cache, memory, across)
            yield x

    def _through(self, block: nn.Module, *inputs: object) -> Tensor:
        """(B, T, D) -> (B, T, D): one block."""
        learning = self.training and torch.is_grad_enabled()
        call = partial(program(), block) if self.compiled and learning else block
        if self.checkpointing == "blocks" and learning:
            return recomputed(call, self.dropout.generator, *inputs)
        x: Tensor = call(*inputs)
        return x

    def _view(self, window: int, x: Tensor, positions: Tensor, mask: Tensor | None, cache: CacheRows | None) -> View:
        """What the layers with this window see."""
        places = torch.arange(x.shape[1], device=x.device)
        queries, keys = (places[None], places) if cache is None else (cache.places, cache.past)
        turn = None
        if isinstance(self.config.position, Rotary):
            frequencies = self._frequencies[window] = self._frequencies[window].to(x.device)  # sent once
            turn = rotation(frequencies, positions, magnitude(self.config.position, window > 0), x.dtype)
        allowed = None
        if cache is None or window or not cache.alone:
            allowed = reach(queries, keys, causal=self.config.mask == "causal", window=window)
            allowed = both(None if allowed is None else allowed[:, None], mask)
        if self.distances is None and self.attention_form == "flex" and cache is None:
            return self._seen(allowed, x, turn)
        bias = None if allowed is None else additive(allowed, x.dtype)
        if self.distances is not None:
            bias = self.distances(queries, keys) + (0 if bias is None else bias)
        causal = bias is not None and mask is None and cache is None and not window and self.distances is None
        return View("sdpa" if self.attention_form == "flex" else self.attention_form, bias, causal, turn)

    def _seen(self, allowed: Tensor | None, x: Tensor, turn: Rotation | None) -> View:
        """A view that a mask alone decides."""
        if self.attention_form == "flex":
            return View("flex", rotation=turn, blocks=None if allowed is None else blocks(allowed))
        return View(self.attention_form, None if allowed is None else additive(allowed, x.dtype), rotation=turn)


def _distances(config: TransformerConfig) -> Distances | None:
    if not isinstance(config.position, Buckets):
        return None
    return Distances(config.position, config.heads, two_sided=config.mask == "full")


def _frequencies(config: TransformerConfig) -> dict[int, Tensor]:
    """The rotary frequencies of each window; plain tensors, so that no cast of the module rounds them."""
    if not isinstance(config.position, Rotary):
        return {}
    return {w: inverse_frequencies(config.position, config.head_dim, local=w > 0) for w in set(config.windows)}
