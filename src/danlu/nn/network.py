"""Embedding, stack and head as one network.

Shapes: B batch · T time · D width · V vocabulary
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from danlu.nn.embed import Tokens
from danlu.nn.heads import Vocabulary
from danlu.nn.masks import segment_mask, segment_positions
from danlu.nn.transformer import Transformer

if TYPE_CHECKING:
    from danlu.nn.cache import Cache

Batch = dict[str, Tensor]


class Network(nn.Module):
    """One stack between an embedding and a head.

    A batch holds input_ids (B, T); and may hold position_ids (B, T), type_ids (B, T) and segment_ids (B, T), where
    tokens with the same number see each other and 0 is padding; with a cache also slots (B,), the slot of each row. A
    cache reads slots, position_ids and segment_ids on the host.
    """

    def __init__(self, embed: Tokens, core: Transformer, head: Vocabulary) -> None:
        super().__init__()
        self.embed, self.core, self.head = embed, core, head

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in, whatever the weights are stored as."""
        nothing: Tensor = self.embed.tokens(torch.empty(0, dtype=torch.long, device=self.device))
        return nothing.dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def hidden(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """The states after the last layer (B, T, D)."""
        ids, segments, positions = batch["input_ids"], batch.get("segment_ids"), batch.get("position_ids")
        rows = mask = None
        if cache is not None:
            rows = cache.rows((ids.shape[0], ids.shape[1]), batch.get("slots"), positions, segments)
            positions = rows.positions
        elif segments is not None:
            mask = segment_mask(segments)
            positions = segment_positions(segments) if positions is None else positions
        x = self.embed(ids, positions, batch.get("type_ids"))
        return self.core(x, positions=positions, mask=mask, cache=rows)

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, V)."""
        return self.head(self.hidden(batch, cache))
