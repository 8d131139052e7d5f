"""Flex attention (2412.05496) on a GPU: one compiled kernel for any mask, which skips what nobody may see.

Where several documents share a row, most pairs of tokens may not see each other: flash attention computes them all, or
cannot take such a mask. Here blocks of 128 x 128 pairs of which none is allowed are never computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as stock

if TYPE_CHECKING:
    from danlu.nn.attention import View
    from danlu.nn.dropout import Dropout


def blocks(allowed: Tensor) -> stock.BlockMask:
    """A mask (1 or B, 1, T, S), True = may, by blocks of pairs."""
    rows = allowed.shape[0]

    def may(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return allowed[row if rows > 1 else 0, 0, query, key]

    queries, keys = allowed.shape[2:]
    return stock.create_block_mask(may, rows if rows > 1 else None, None, queries, keys, device=allowed.device)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(stock.flex_attention, dynamic=False)


def flex(q: Tensor, k: Tensor, v: Tensor, view: View, scale: float, dropout: Dropout) -> Tensor:
    """(B, H, T, E), (B, K, S, E) twice -> (B, H, T, E). On a processor it holds all scores, and is only an oracle."""
    attend: Any = _compiled() if q.is_cuda else stock.flex_attention
    mixed: Tensor = attend(q, k, v, block_mask=view.blocks, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return mixed
