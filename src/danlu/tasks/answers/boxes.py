"""Two ways in which networks say boxes: places of which each answers for what is there, and queries that answer a set.

Shapes: N pictures · P places or queries that answer · M boxes that columns have room for · C classes · S pixels on each
side; boxes are left, top, right, bottom in pixels
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar

from torch import Tensor

from danlu import models
from danlu.nn import boxes, matching
from danlu.nn.boxes import SIDES
from danlu.nn.losses import wide
from danlu.nn.queries import Queries
from danlu.tasks.task import Batch

_PRIOR = 4.6  # taken from each logit: at first a place holds a thing once in a hundred (1708.02002, section 4.1)


@dataclass(frozen=True)
class Way(ABC):
    """How a network says boxes in pictures of `size` pixels on each side; a batch holds them scaled."""

    size: int
    terms: ClassVar[tuple[str, ...]]  # of its loss, all divided by the same

    @abstractmethod
    def held(self, true: Tensor) -> Tensor:
        """What each term is divided by, of true boxes (N, M, 5): a sum over pictures."""

    @abstractmethod
    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """SUMS of each term."""

    @abstractmethod
    def said(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """How sure it is of each class (N, P, C), and boxes (N, P, 4)."""


class Places(Way):
    """Each place answers for the smallest box whose middle is near (FCOS, 1904.01355)."""

    terms = ("loss", "place")

    def held(self, true: Tensor) -> Tensor:
        """Places that answer for a box; how many places there are, the size of the pictures alone decides."""
        side = models.preset("fcos", 0, 1, 1, image=self.size).embed.finest  # type: ignore[union-attr]
        return (self._assigned(true, side)[0] >= 0).sum()

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Focal loss of classes (1708.02002), and of boxes 1 - their generalised overlap (1902.09630)."""
        logits, found = self._answers(net, batch)
        kinds, own = self._assigned(batch["boxes"], isqrt(logits.shape[1]))
        held = kinds >= 0
        apart = boxes.apart(found[held], own[held].to(found.dtype)).sum()
        return {"loss": boxes.focal(logits, kinds), "place": apart}

    def said(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, found = self._answers(net, batch)
        return logits.sigmoid(), found

    def _answers(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, P, C) and boxes (N, P, 4), in fp32 or wider."""
        told = wide(net(batch))
        side = isqrt(told.shape[1])
        places = boxes.places_of(side, self.size, told.device)
        return told[..., SIDES:] - _PRIOR, boxes.boxes_of(told[..., :SIDES], places, self.size / side)

    def _assigned(self, true: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The class of the box that each place answers for (N, P), -1 of none, and that box (N, P, 4)."""
        return boxes.assigned(true, boxes.places_of(side, self.size, true.device))


class Asked(Way):
    """Each query answers for at most one box, and each box has one query that answers for it (DETR, 2005.12872)."""

    terms = ("kind", "corner", "overlap")

    def held(self, true: Tensor) -> Tensor:
        """Boxes."""
        return (true[..., SIDES] >= 0).sum()

    def losses(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Of what every layer of the decoder answers, each matched on its own."""
        each = [matching.losses(wide(told), batch["boxes"], self.size) for told in net.layers(batch)]
        return {term: sum((losses[term] for losses in each[1:]), each[0][term]) for term in self.terms}

    def said(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        told = wide(net(batch))
        shares = told[..., SIDES:].softmax(-1)[..., :-1]
        return shares, matching.corners(told[..., :SIDES].sigmoid()) * self.size


def way_of(net: Any, size: int) -> Way:
    """How a network says boxes."""
    return (Asked if isinstance(net.head, Queries) else Places)(size)


def held(true: Tensor, size: int) -> dict[str, Tensor]:
    """What every term of either way is divided by: from the boxes (N, M, 5) alone, whoever learns of them."""
    counts = {way: way(size).held(true) for way in (Places, Asked)}
    return {term: count for way, count in counts.items() for term in way.terms}
