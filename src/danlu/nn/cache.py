"""Keys and values of what was read so far, in fixed memory, for many sequences at once.

Shapes: B rows of a batch · T tokens of this forward · S places filled · K key/value heads · E head_dim
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from danlu.nn.config import TransformerConfig
from danlu.nn.masks import segment_positions


class Cache:
    """`slots` sequences of up to `length` tokens; the rows of a batch may be any of the slots, at different lengths.

    Which place is whose is kept on the host, wherever the keys are: a GPU is told, never asked. A decoder that attends
    to a memory keeps that here too, with each layer's keys and values of it: all rows then stand in their slots' order.
    """

    def __init__(
        self, config: TransformerConfig, slots: int, length: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        shape = (config.layers, slots, config.kv_heads, length + 1, config.head_dim)  # the last place takes the pads
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = torch.zeros(slots, dtype=torch.long, device="cpu")
        self.length = length
        self.memory: tuple[Tensor, Tensor | None] | None = None  # states (B, S, M), and who is real (B, 1, 1, S)
        self.memory_keys: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys and values (B, K, S, E)

    def free(self, slot: int) -> None:
        """Forget what a slot holds."""
        self.lengths[slot] = 0

    def rows(
        self, shape: tuple[int, int], slots: Tensor | None, positions: Tensor | None, segments: Tensor | None
    ) -> CacheRows:
        """Where the tokens of a (B, T) batch go: at their positions, or after what their slots hold; pads nowhere.

        slots (B,), positions and segments (B, T) lie on the host.
        Raises ValueError when a position lies beyond the cache.
        """
        slots = torch.arange(shape[0]) if slots is None else slots
        if positions is None:
            steps = torch.arange(shape[1]) if segments is None else segment_positions(segments)
            positions = self.lengths[slots, None] + steps
        real = torch.ones_like(positions, dtype=torch.bool) if segments is None else segments > 0
        ends = torch.where(real, positions + 1, 0).amax(1)
        if int(ends.max()) > self.length:
            raise ValueError(f"the cache holds {self.length} tokens; position {int(ends.max()) - 1} lies beyond it")
        self.lengths[slots] = ends
        return CacheRows(self, slots, positions, torch.where(real, positions, self.length), int(ends.max()))


class CacheRows:
    """The slots of one batch, during one forward."""

    def __init__(self, cache: Cache, slots: Tensor, positions: Tensor, places: Tensor, filled: int) -> None:
        device = cache.keys.device
        self.positions, self.places = positions.to(device), places.to(device)  # (B, T)
        self.past = torch.arange(filled, device=device)  # (S,)
        self.alone = places.shape[1] == 1 and bool((places == filled - 1).all())  # every query sees every place
        self._cache, self._slots, self._filled = cache, slots.to(device), filled
        first, count = int(slots[0]), len(slots)
        in_order = slots.tolist() == list(range(first, first + count))
        self._run = slice(first, first + count) if in_order else None  # neighbours are read without a copy

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B, K, T, E) to their places; returns the whole past (B, K, S, E)."""
        return self._extended(self._cache.keys[layer], k), self._extended(self._cache.values[layer], v)

    def across(self, layer: int, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The memory's keys and values for a layer, computed at the first forward alone."""
        if layer not in self._cache.memory_keys:
            self._cache.memory_keys[layer] = compute()
        return self._cache.memory_keys[layer]

    def _extended(self, store: Tensor, new: Tensor) -> Tensor:
        store[self._slots[:, None], :, self.places] = new.transpose(1, 2)
        past = store[:, :, : self._filled]
        return past.index_select(0, self._slots) if self._run is None else past[self._run]
