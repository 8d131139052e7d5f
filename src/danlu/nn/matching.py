"""Which answer is about which true box: a matching of least cost, and the losses of what it matched (2005.12872).

Shapes: N pictures · Q answers of each · M boxes that columns have room for · C classes · D pairs that were matched;
true boxes are left, top, right, bottom in pixels, and their class, -1 of none
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from danlu.nn.boxes import SIDES, apart

NONE = 0.1  # weight of an answer that is about no thing
_CORNERS, _OVERLAP = 5.0, 2.0  # weights of the paper; that of classes is 1
_WORST = 1e9  # cost in place of one that is no number


def assignment(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of (n, m) in pairs, as many as the shorter side has, whose costs have the least sum.

    Shortest augmenting paths (Kuhn 1955; Jonker and Volgenant 1987): O(n m) for each row that is added.
    """
    if costs.shape[0] > costs.shape[1]:
        columns, rows = assignment(costs.T)
        return rows, columns
    costs = np.nan_to_num(costs.astype(np.float64), nan=_WORST, posinf=_WORST, neginf=-_WORST)
    rows, columns = costs.shape
    held, of_rows, of_columns = np.full(columns, -1), np.zeros(rows), np.zeros(columns)
    for row in range(rows):
        _added(costs, row, held, of_rows, of_columns)
    (found,) = np.nonzero(held >= 0)
    return held[found], found


def _added(costs: np.ndarray, row: int, held: np.ndarray, of_rows: np.ndarray, of_columns: np.ndarray) -> None:
    """Give a row a column, and others other columns where that costs less; `held` is the row of each column.

    The prices of rows and columns stay such that no pair costs less than they do, and matched ones just as much.
    """
    least, before = np.full(len(held), np.inf), np.full(len(held), -1)
    seen, at, column, paid = np.zeros(len(held), bool), row, -1, 0.0
    while at >= 0:
        through = paid + costs[at] - of_rows[at] - of_columns
        better = ~seen & (through < least)
        least[better], before[better] = through[better], column
        column = int(np.where(seen, np.inf, least).argmin())
        paid, seen[column] = float(least[column]), True
        at = int(held[column])
    done = seen & (held >= 0)
    of_rows[held[done]] += paid - least[done]
    of_rows[row] += paid
    of_columns[seen] -= paid - least[seen]
    while column >= 0:
        held[column] = held[before[column]] if before[column] >= 0 else row
        column = int(before[column])


def corners(sides: Tensor) -> Tensor:
    """Left, top, right, bottom from middle, width and height (..., 4)."""
    middle, half = sides[..., :2], sides[..., 2:] / 2
    return torch.cat((middle - half, middle + half), -1)


def centred(boxes: Tensor) -> Tensor:
    """The way back."""
    return torch.cat(((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]), -1)


def costs(said: Tensor, boxes: Tensor, kinds: Tensor) -> Tensor:
    """What it costs that an answer (Q, 4 + C + 1) is about a box (B, 4), in shares of the picture, of a class (B,)."""
    found, shares = said[:, :SIDES].sigmoid(), said[:, SIDES:].softmax(-1)
    distance = (found[:, None] - centred(boxes)[None]).abs().sum(-1)
    pairs = (corners(found).repeat_interleave(len(boxes), 0), boxes.repeat(len(found), 1))
    return _CORNERS * distance + _OVERLAP * apart(*pairs).view_as(distance) - shares[:, kinds]


@torch.no_grad()
def matched(said: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Picture, answer and box (D,) of each pair: answers (N, Q, 4 + C + 1), boxes (N, M, 5) in pictures of `size`.

    Where a picture has more boxes than answers, the dearest are about none.
    """
    found = []
    for picture, (own, true) in enumerate(zip(said, boxes, strict=True)):
        (there,) = torch.nonzero(true[:, SIDES] >= 0, as_tuple=True)
        priced = costs(own, (true[there, :SIDES] / size).to(own.dtype), true[there, SIDES].long())
        answers, places = assignment(priced.cpu().numpy())
        found.append((np.full(len(answers), picture), answers, there.cpu().numpy()[places]))
    return tuple(torch.from_numpy(np.concatenate(each)).to(said.device) for each in zip(*found, strict=True))  # type: ignore[return-value]


def losses(said: Tensor, boxes: Tensor, size: int) -> dict[str, Tensor]:
    """SUMS over answers (N, Q, 4 + C + 1), once each is matched: `kind`, cross-entropy with the class or none;
    `corner`, how far middle, width and height are off; `overlap`, 1 - generalised overlap (1902.09630)."""
    picture, answer, place = matched(said, boxes, size)
    true = boxes[picture, place].to(said.dtype)
    logits, placed = said[..., SIDES:], true[:, :SIDES] / size
    wanted = torch.full(logits.shape[:2], logits.shape[-1] - 1, device=said.device)
    wanted[picture, answer] = true[:, SIDES].long()
    weight = torch.cat((logits.new_ones(logits.shape[-1] - 1), logits.new_full((1,), NONE)))
    found = said[picture, answer, :SIDES].sigmoid()
    return {
        "kind": F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight, reduction="sum"),
        "corner": _CORNERS * (found - centred(placed)).abs().sum(),
        "overlap": _OVERLAP * apart(corners(found), placed).sum(),
    }
