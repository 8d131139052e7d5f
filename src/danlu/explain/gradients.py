"""Integrated gradients (Sundararajan et al. 2017, 1703.01365): a number shared out among the places that it is made of.

Shapes: N copies of an example · T places · D width
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
_TOGETHER = 8  # copies of one pass
FEWEST, MOST = 16, 256  # points of the path
CLOSE = 0.01  # of the difference of the outputs: the points are enough


@contextmanager
def replaced(module: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Have a module give these vectors, whatever it reads."""
    handle = module.register_forward_hook(lambda *_: vectors)
    try:
        yield
    finally:
        handle.remove()


def integrated(
    number: Callable[[Batch], Tensor], embed: nn.Module, copies: Callable[[int], Batch], ends: tuple[Tensor, Tensor],
    points: int, bend: int = 1,
) -> Tensor:  # fmt: skip
    """(T,) float64 on the processor: (x - x') · the integral of the gradient along the straight way from x' to x.

    Args:
        number: of a batch of N copies, (N,).
        embed: what gives their vectors (N, T, D), which are replaced by those on the way.
        copies: a batch of so many copies.
        ends: the vectors x' and x (1, T, D).
        points: of the way at which gradients are taken (Gauss and Legendre's rule); complete up to its error.
        bend: shares of the way are powers of the rule's points: where what happens, happens at its beginning.
    """
    start, end = ends
    nodes, weights = np.polynomial.legendre.leggauss(points)
    wide = torch.promote_types(start.dtype, torch.float32)  # points that are rounded to bf16 are others
    even = (nodes + 1) / 2
    shares = torch.tensor(even**bend, dtype=wide, device=start.device)
    scales = torch.tensor(weights / 2 * bend * even ** (bend - 1))
    total = torch.zeros(start.shape[1:], dtype=torch.float64)
    for share, scale in zip(shares.split(_TOGETHER), scales.split(_TOGETHER), strict=True):
        total += torch.einsum("n,ntd->td", scale, _slopes(number, embed, copies, start, end, share))
    return (total * (end - start)[0].cpu().double()).sum(-1)


def _slopes(number: Any, embed: nn.Module, copies: Any, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Gradients (N, T, D) at these shares (N,) of the way."""
    vectors = (start + share[:, None, None] * (end - start)).to(start.dtype).requires_grad_()
    with torch.enable_grad(), replaced(embed, vectors):
        (found,) = torch.autograd.grad(number(copies(len(share))).sum(), vectors)
    return found.cpu().double()


def complete(attributed: Callable[[int], Tensor], difference: float) -> tuple[Tensor, int, float]:
    """The shares of a difference of outputs, with as many points as it takes; the points; and what is unaccounted for.

    The points are doubled until the shares add up to the difference but for a hundredth.
    """
    points = FEWEST
    while True:
        found = attributed(points)
        gap = float(found.sum()) - difference
        if abs(gap) <= CLOSE * abs(difference) or points >= MOST:
            return found, points, gap
        points *= 2
