"""From noise to pictures and back: how much of a picture is left at each level, and the way down the levels.

Shapes: T levels of noise · N pictures · C channels · S pixels on each side
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_OFFSET, _STEEPEST = 0.008, 0.999  # of the cosine: so that the first levels have some noise, and the last one is finite
_LEAST, _MOST, _USUAL = 1e-4, 0.02, 1000  # of the line: variances that a level adds, where there are so many levels


def signal(levels: int, schedule: str) -> Tensor:
    """The share of the variance that is still the picture's at each level (T,) float64, falling.

    "linear": what each level adds grows in a line (2006.11239); "cosine": what is left falls as a squared cosine does,
    which small pictures keep something of for longer (2102.09672).
    """
    if schedule == "linear":
        scale = _USUAL / levels
        added = torch.linspace(_LEAST * scale, _MOST * scale, levels, dtype=torch.float64).clamp(max=_STEEPEST)
        return (1 - added).cumprod(0)
    places = torch.arange(levels + 1, dtype=torch.float64) / levels
    left = torch.cos((places + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
    return (1 - (1 - left[1:] / left[:-1]).clamp(max=_STEEPEST)).cumprod(0)


def usual(levels: int) -> Tensor:
    """The level to learn from at each of so many equal chances (T,) int64: two of three are in the middle half.

    There it is decided what a picture shows; at the ends little is to be found (logit-normal; 2403.03206, section 3.1).
    """
    chances = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    return (torch.sigmoid(torch.special.ndtri(chances)) * levels).long().clamp(max=levels - 1)


def noised(pixels: Tensor, noise: Tensor, left: Tensor) -> Tensor:
    """Pictures (N, C, S, S) of which the share `left` (N,) of the variance stays, the rest is noise of variance 1."""
    left = left[:, None, None, None]
    return left.sqrt() * pixels + (1 - left).sqrt() * noise


def descended(found: Callable[[Tensor, Tensor], Tensor], noise: Tensor, left: Tensor, steps: int) -> Tensor:
    """Pictures (N, C, S, S), from -1 to 1, that noise leads to in a few steps: DDIM without noise of its own.

    `found` says what of pictures at levels (N,), from 0 to 1, is noise; `left` (T,) is the schedule (2010.02502).
    """
    levels, x = len(left), noise
    places = torch.linspace(levels - 1, 0, min(steps, levels)).round().long().tolist()
    for place, after in zip(places, [*places[1:], None], strict=True):
        now, then = float(left[place]), 1.0 if after is None else float(left[after])
        told = found(x, torch.full((len(x),), place / levels, device=x.device)).to(x.dtype)
        # A picture is never brighter than white: with that, errors of the first steps do not grow.
        clean = ((x - math.sqrt(1 - now) * told) / math.sqrt(now)).clamp(-1, 1)
        told = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
        x = math.sqrt(then) * clean + math.sqrt(1 - then) * told
    return x
