"""Set prediction: learned queries, each of which answers for at most one thing in a picture (DETR, 2005.12872).

Shapes: N pictures · S places of the encoder · Q queries · D width of both stacks · C classes
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.config import TransformerConfig
from danlu.nn.embed import table_of
from danlu.nn.linear import Linear
from danlu.nn.transformer import Transformer

SIDES = 4


@dataclass(frozen=True)
class QueriesConfig:
    """A decoder that attends to the encoder's states, how many queries it is asked, and what each answers."""

    core: TransformerConfig
    queries: int
    count: int  # classes; each answer has one logit more, of no thing

    def __post_init__(self) -> None:
        if not self.core.memory:
            raise ValueError("queries are of what an encoder saw: their stack needs a memory")


class Queries(nn.Module):
    """A table of queries, a decoder, and for each query a class and a box.

    An answer is four numbers, which a sigmoid makes the middle, width and height of a box in shares of the picture,
    and logits of the classes, last that of no thing.
    """

    def __init__(self, config: QueriesConfig, dim: int) -> None:
        super().__init__()
        self.config, width = config, config.core.dim
        self.queries = table_of(config.queries, width)
        self.core = Transformer(config.core)
        self.first, self.second = Linear(width, width), Linear(width, width)
        self.sides, self.kinds = Linear(width, SIDES), Linear(width, config.count + 1)

    def forward(self, memory: Tensor) -> Tensor:
        """The encoder's states (N, S, D) -> answers (N, Q, 4 + C + 1)."""
        return self._answers(self.core(self._asked(memory), memory=memory))

    def layers(self, memory: Tensor) -> list[Tensor]:
        """What each layer of the decoder would answer, the last one as `forward` does: all of them learn."""
        _, *states = self.core.passed(self._asked(memory), memory=memory)
        return [self._answers(self.core.finished(x)) for x in states]

    def _asked(self, memory: Tensor) -> Tensor:
        return self.queries.weight.to(memory.dtype).expand(len(memory), -1, -1)

    def _answers(self, states: Tensor) -> Tensor:
        sides = self.sides(F.relu(self.second(F.relu(self.first(states)))))
        return torch.cat((sides, self.kinds(states)), -1)

    def asks_as(self, known: Queries) -> bool:
        """Whether another is the same but for its classes."""
        return replace(known.config, count=self.config.count) == self.config

    def adopt(self, known: Queries) -> None:
        """Take over all but the classes, which are others."""
        for name, part in known.named_children():
            if name != "kinds":
                setattr(self, name, part)
