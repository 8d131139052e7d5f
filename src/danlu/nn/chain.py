"""Labels along a sequence, where one may not follow every other.

Shapes: N sequences · L places · C labels
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_path(scores: Tensor, steps: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
    """The labels with the highest sum of scores (N, L), by Viterbi's algorithm (1967); beyond a length they are 0.

    scores (N, L, C) of each label in each place, steps (C, C) of going from one label to another, first (C,) of
    beginning with a label; -inf forbids. lengths (N,) are at least 1.
    """
    best, pointers = scores[:, 0] + first, []
    for place in range(1, scores.shape[1]):
        highest, origin = (best[:, :, None] + steps).max(1)
        inside = (place < lengths)[:, None]
        best = torch.where(inside, highest + scores[:, place], best)
        pointers.append(torch.where(inside, origin, torch.arange(scores.shape[2], device=scores.device)))
    path = [best.argmax(1)]
    for origin in reversed(pointers):
        path.append(origin.gather(1, path[-1][:, None]).squeeze(1))
    found = torch.stack(path[::-1], 1)
    places = torch.arange(scores.shape[1], device=scores.device)
    return found.masked_fill(places >= lengths[:, None], 0)
