"""Boxes from places that answer, and which place answers for which box (FCOS, 1904.01355, with one size of places).

Shapes: N pictures · P places · M boxes · C classes · D boxes that are kept; a box is left, top, right, bottom in pixels
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDES = 4
_NEAR = 1.5  # places from the middle of a box that answer for it, at most
_FARTHEST = 6.0  # logarithm of the farthest side, in places
_BALANCE, _FOCUS = 0.25, 2.0  # alpha and gamma of 1708.02002
_MOST = 1000  # places of a picture that are looked at


def places_of(side: int, size: int, device: torch.device) -> Tensor:
    """The middle of each place (P, 2), right and down, row by row."""
    along = (torch.arange(side, device=device) + 0.5) * (size / side)
    return torch.stack((along.repeat(side), along.repeat_interleave(side)), -1)


def assigned(boxes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Of boxes (N, M, 5), the fifth the class, -1 of none: the class at each place (N, P), and its box (N, P, 4).

    A place answers for the smallest of the boxes whose middle is near and in which it lies; the place under the middle
    does however small the box is. -1 where there is none.
    """
    corners, kinds = boxes[..., :SIDES], boxes[..., SIDES].long()
    stride = float(places[0, 0]) * 2
    x, y = places[:, :1], places[:, 1:]
    left, top, right, bottom = (side[:, None] for side in corners.unbind(-1))  # beside (P, 1): (N, P, M) each
    nearest = torch.minimum(torch.minimum(x - left, right - x), torch.minimum(y - top, bottom - y))
    away = torch.maximum((x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs())
    fits = ((nearest > 0) & (away <= _NEAR * stride)) | (away <= stride / 2)
    area = (corners[..., 2:] - corners[..., :2]).prod(-1)[:, None].expand_as(away)
    least, which = area.masked_fill(~(fits & (kinds >= 0)[:, None]), torch.inf).min(-1)
    own = torch.gather(corners, 1, which[..., None].expand(-1, -1, SIDES))
    return torch.where(least.isfinite(), torch.gather(kinds, 1, which), -1), own


def boxes_of(said: Tensor, places: Tensor, stride: float) -> Tensor:
    """Boxes (N, P, 4) from logarithms of how far each side is from its place, in places."""
    away = said.clamp(max=_FARTHEST).exp() * stride
    return torch.cat((places - away[..., :2], places + away[..., 2:]), -1)


def focal(logits: Tensor, kinds: Tensor) -> Tensor:
    """SUM of focal losses of logits (N, P, C): each class against none, at places of a class (N, P), -1 of none."""
    wanted = F.one_hot(kinds.clamp(min=0), logits.shape[-1]).to(logits.dtype) * (kinds >= 0)[..., None]
    plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    wrong = (logits.sigmoid() - wanted).abs()
    weight = wanted * _BALANCE + (1 - wanted) * (1 - _BALANCE)
    return (weight * wrong**_FOCUS * plain).sum()


def apart(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalised intersection over union (1902.09630) of boxes (D, 4) with others, pair by pair (D,)."""
    least, most = torch.maximum(found[:, :2], wanted[:, :2]), torch.minimum(found[:, 2:], wanted[:, 2:])
    both = (most - least).clamp(min=0).prod(-1)
    sizes = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (found, wanted)]
    either = sizes[0] + sizes[1] - both
    around = torch.maximum(found[:, 2:], wanted[:, 2:]) - torch.minimum(found[:, :2], wanted[:, :2])
    hull = around.prod(-1)
    return 1 - both / either + (hull - either) / hull


def kept(scores: np.ndarray, boxes: np.ndarray, least: float, overlap: float, most: int) -> np.ndarray:
    """Boxes (D, 6) of one picture: corners, score, class; the surest first, and of those that overlap the surest.

    scores (P, C), boxes (P, 4); only boxes of one class are in each other's way.
    """
    from danlu.metrics.detection import overlaps

    place, kind = np.nonzero(scores >= least)
    order = np.argsort(-scores[place, kind], kind="stable")[:_MOST]
    place, kind = place[order], kind[order]
    found = np.concatenate([boxes[place], scores[place, kind][:, None], kind[:, None]], 1).astype(np.float64)
    shared = overlaps(found[:, :SIDES], found[:, :SIDES]) * (kind[:, None] == kind[None])
    left, chosen = np.ones(len(found), bool), list[int]()
    for each in range(len(found)):
        if left[each] and len(chosen) < most:
            chosen.append(each)
            left &= shared[each] <= overlap
    return found[chosen]
