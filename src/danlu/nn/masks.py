"""Who may attend to whom: boolean masks, True = may, and the additive form that the scores take.

Shapes: B batch · T queries · S keys
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def segment_mask(segments: Tensor) -> Tensor | None:
    """(B, T) segment numbers -> (B, 1, T, T): equal numbers see each other; 0 is padding. None when that is everyone.

    On a GPU the host is not made to wait for the answer: whoever sends a batch there leaves such segments out.

    Packing (several documents in a row) and padding are both this; a pad sees only pads, so no row is ever empty.
    """
    if segments.is_cpu and bool((segments == segments[:, :1]).all()):
        return None
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def across_mask(queries: Tensor, keys: Tensor) -> Tensor:
    """Segment numbers of a decoder (B, T) and its encoder (B, S) -> (B, 1, T, S): equal numbers see each other.

    A pad sees everything, so that no row is ever empty, whether there are pads among the keys or not.
    """
    return ((queries[:, :, None] == keys[:, None]) | (queries == 0)[:, :, None])[:, None]


def segment_positions(segments: Tensor) -> Tensor:
    """(B, T) segment numbers -> (B, T) positions that restart at 0 with each segment.

    Padding stands in place 0: there may be more of it than a table of places is long.
    """
    index = torch.arange(segments.shape[1], device=segments.device)
    return (index - torch.where(_begins(segments), index, 0).cummax(dim=1).values) * (segments > 0)


def openings(segments: Tensor) -> Tensor:
    """(B, T) segment numbers -> (B, T): True at the first token of each segment that is not padding."""
    return _begins(segments) & (segments > 0)


def firsts(column: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """What a column (B, T) of a batch holds at the first token of each segment that is not padding (N,)."""
    return column[openings(batch.get("segment_ids", torch.ones_like(batch["input_ids"])))]


def endings(segments: Tensor) -> Tensor:
    """(B, T) segment numbers -> (B, T): True at the last token of each segment that is not padding."""
    return _begins(segments.flip(1)).flip(1) & (segments > 0)


def _begins(segments: Tensor) -> Tensor:
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return starts


def reach(queries: Tensor, keys: Tensor, *, causal: bool, window: int) -> Tensor | None:
    """Places in the row, queries (B, T) and keys (S,) -> (B, T, S): what the direction and the window allow."""
    distance = queries[:, :, None] - keys
    allowed = distance >= 0 if causal else None
    if window:
        near = distance.abs() < window
        allowed = near if allowed is None else allowed & near
    return allowed


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The intersection of two masks; None allows everything."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where allowed, -inf where not."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, float("-inf"))
