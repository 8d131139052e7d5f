"""Which tokens masked language modelling hides.

Shapes: B batch · T time
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from danlu.nn.masks import endings

LONGEST, STOPS = 10, 0.2  # tokens of a span, and the chance that it ends after each (SpanBERT, 1907.10529)


def tokens(free: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, T) who may be hidden -> (B, T) who is: each by itself (BERT, 1810.04805)."""
    return free & (torch.rand(free.shape, generator=generator) < share)


def words(free: Tensor, inside: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """All tokens of a word or none; `inside` (B, T) says which tokens go on with a word."""
    index = torch.arange(free.shape[1]).expand_as(free)
    first = torch.where(inside & free, 0, index).cummax(1).values  # of the word that each token belongs to
    return free & (torch.rand(free.shape, generator=generator) < share).gather(1, first)


def spans(free: Tensor, segments: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Runs of tokens whose lengths are geometric, at most LONGEST; none reaches into another text of its row."""
    chances = (1 - STOPS) ** torch.arange(LONGEST) * STOPS
    lengths = torch.multinomial(chances, free.numel(), replacement=True, generator=generator).view(free.shape) + 1
    begins = free & (torch.rand(free.shape, generator=generator) < _begun(share))
    index = torch.arange(free.shape[1]).expand_as(free)
    last = torch.where(endings(segments), index, free.shape[1]).flip(1).cummin(1).values.flip(1)
    reach = torch.where(begins, torch.minimum(index + lengths - 1, last), -1).cummax(1).values
    return free & (reach >= index)


@cache
def _begun(share: float) -> float:
    """The chance that a span begins at a token, so that a share of all is hidden, spans lying over each other."""
    longer = [(1 - STOPS) ** length for length in range(LONGEST)]  # that a span goes on so far; the last are cut off
    whole = 1 - (1 - STOPS) ** LONGEST
    reaching = [(each - 1 + whole) / whole for each in longer]
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        found = 1 - math.prod(1 - middle * each for each in reaching)
        low, high = (middle, high) if found < share else (low, middle)
    return low
