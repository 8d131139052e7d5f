"""Which tokens of a text are hidden, to be found again.

Shapes: B batch · T time · G texts
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


def few_spans(
    free: Tensor, segments: Tensor, share: float, mean: float, most: int, generator: torch.Generator
) -> Tensor:
    """A fixed number of each text's tokens in a fixed number of spans, every way to lie as likely (T5, 1910.10683).

    Of n free tokens n · share are hidden (at least one, and one stays) in so many spans that they are `mean` long, at
    most `most` of them; between two spans a token is left.
    """
    places = free.flatten().nonzero().flatten()
    texts = torch.arange(len(segments))[:, None] * (segments.max() + 1) + segments
    sizes = texts.flatten()[places].unique_consecutive(return_counts=True)[1]
    hidden = torch.minimum((sizes * share).round().long().clamp(min=1), sizes - 1)
    count = torch.minimum((hidden / mean).round().long().clamp(1, most), torch.minimum(hidden, sizes - hidden + 1))
    index = torch.arange(int(hidden.max()) if len(sizes) else 0)
    begins = torch.cat([count[:, None] > 0, _chosen(hidden - 1, count - 1, generator)], 1)[:, : len(index)]
    gaps = _chosen(sizes - hidden + 1, count, generator).nonzero()[:, 1]  # kept tokens before each span, text by text
    span = (count.cumsum(0) - count)[:, None] + begins.cumsum(1) - 1
    real = index < hidden[:, None]
    first = (sizes.cumsum(0) - sizes)[:, None].expand_as(real)
    found = torch.zeros(free.numel(), dtype=torch.bool)
    found[places[(first + index)[real] + gaps[span[real]]]] = True
    return found.view(free.shape)


def _chosen(among: Tensor, count: Tensor, generator: torch.Generator) -> Tensor:
    """(G, M): `count` (G,) of the first `among` (G,) places, every choice as likely."""
    draws = torch.rand(len(among), max(int(among.max()), 0) if len(among) else 0, generator=generator)
    draws = torch.where(torch.arange(draws.shape[1]) < among[:, None], draws, 2.0)
    order = draws.argsort(dim=1, stable=True)
    taken = torch.arange(draws.shape[1]) < count[:, None]
    return torch.zeros_like(taken).scatter_(1, order, taken)


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


def _signed(number: int) -> int:
    """64 bits as int64 has them."""
    return number - (1 << 64) if number >> 63 else number


_GOLDEN, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_APART = 0x2545F4914F6CDD1D  # from what else is drawn by the same numbers


def patches(lots: Tensor, count: int, seen: int) -> Tensor:
    """Of pictures with a number each (N,), the places (N, seen) of `count` patches that are not hidden, in order: a
    function of that number alone, the same on every device (SplitMix64)."""
    mixed = (lots[:, None] ^ _APART) + torch.arange(1, count + 1, device=lots.device) * _GOLDEN
    mixed = (mixed ^ _right(mixed, 30)) * _FIRST
    mixed = (mixed ^ _right(mixed, 27)) * _SECOND
    order = _right(mixed ^ _right(mixed, 31), 1).argsort(dim=1, stable=True)
    return order[:, :seen].sort(1).values


def _right(x: Tensor, bits: int) -> Tensor:
    """int64 moved right, zeros coming in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
