"""The model and its KV cache, divided into slots: one sequence each.

Shapes: B slots of this step · V vocabulary
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from danlu.nn.cache import Cache
from danlu.nn.network import Network


class Slots:
    """`count` slots of up to `length` tokens. Only the thread that owns the model reads and steps."""

    def __init__(self, network: Network, count: int, length: int):
        self.count = count
        self._network = network.eval()
        self._cache = Cache(network.core.config, count, length, network.dtype, network.device)
        self._unused = list(range(count))

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return len(self._unused)

    def take(self) -> int:
        """The lowest free slot: neighbours in the cache are read without a copy."""
        slot = min(self._unused)
        self._unused.remove(slot)
        return slot

    def release(self, slot: int) -> None:
        self._cache.free(slot)
        self._unused.append(slot)

    def read(self, slot: int, tokens: Sequence[int], start: int) -> None:
        """Keys and values of `tokens`, at the positions from `start`, into one slot."""
        self._network.hidden(self._batch([slot], [tokens], [range(start, start + len(tokens))]), self._cache)

    def step(self, slots: Sequence[int], tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """One more token in each of the slots; the logits (B, V) of what follows."""
        batch = self._batch(slots, [[token] for token in tokens], [[position] for position in positions])
        logits: Tensor = self._network(batch, self._cache)
        return logits[:, -1]

    def _batch(
        self, slots: Sequence[int], tokens: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        columns = {"input_ids": tokens, "position_ids": [list(row) for row in positions], "slots": list(slots)}
        batch = {name: torch.tensor(column) for name, column in columns.items()}
        return batch | {"input_ids": batch["input_ids"].to(self._network.device)}
