"""A student learns what a teacher says, beside what is true: hard (DeiT, 2012.12877) or soft (1503.02531).

Shapes: N pictures · C classes of the student · S pixels on each side
"""

import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu.errors import UserError
from danlu.nn.losses import wide


@dataclass(frozen=True)
class Teacher:
    """A trained network that sees each picture as the student does in this epoch, and where its classes stand."""

    net: Any
    processor: Any
    places: Tensor  # of the student's classes among its own (C,)
    way: str  # hard | soft
    share: float  # of the loss that is about what it says
    temperature: float

    @classmethod
    def of(cls, model: Any, student: Any, way: str, share: float, temperature: float) -> Self:
        """The teacher of a student's task.

        Raises:
            UserError: E625, it has learned other classes; E626, it sees pictures of another size.
        """
        ours, theirs = student.labels, model.task.labels
        if missing := [label for label in ours if label not in theirs]:
            raise UserError("E625", missing=", ".join(missing[:5]), theirs=", ".join(theirs[:8]))
        if (seen := model.processor.sizes) != (own := student.processor.sizes):
            raise UserError("E626", **{f"{who}_{name}": each[name] for who, each in (("own", own), ("its", seen))
                                       for name in ("image", "channels")})  # fmt: skip
        places = torch.tensor([theirs.index(label) for label in ours])
        return cls(model.net.eval().requires_grad_(False), model.processor, places, way, share, temperature)

    @torch.no_grad()
    def says(self, pixel_values: Tensor) -> Tensor:
        """Logits (N, C) for pictures (N, channels, S, S) from 0 to 255: a function of each picture alone."""
        batch = self.processor.scaled({"pixel_values": pixel_values})
        return wide(self.net(batch))[:, self.places]

    def mixed(self, true: Tensor, logits: Tensor, said: Tensor) -> Tensor:
        """Losses of the true labels (N,), and beside them those of what it said (N, C), in shares (N,)."""
        return (1 - self.share) * true + self.share * self._losses(logits, said.to(logits.dtype))

    def _losses(self, logits: Tensor, said: Tensor) -> Tensor:
        """hard: cross-entropy with its class; soft: Kullback-Leibler divergence at a temperature, times its square,
        so that gradients do not shrink with it."""
        if self.way == "hard":
            return F.cross_entropy(logits, said.argmax(-1), reduction="none")
        own, theirs = ((each / self.temperature).log_softmax(-1) for each in (logits, said))
        return F.kl_div(own, theirs, reduction="none", log_target=True).sum(-1) * self.temperature**2


def beside(task: Any, model: Any, said: Any) -> Any:
    """The task with a model as its teacher, as the recipe says of it; what is learned does not hold on to it.

    Raises:
        UserError: E625, E626.
    """
    pupil = copy.copy(task)
    pupil.teacher = Teacher.of(model, task, said.way, said.share, said.temperature)
    return pupil
