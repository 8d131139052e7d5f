"""Token ids to vectors: the sum of tables, then a norm, then a projection, each where the model has one.

Shapes: B batch · T time · W table width · D width of the stack
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danlu.nn.linear import Linear
from danlu.nn.norm import Norm


@dataclass(frozen=True)
class TokensConfig:
    """Every embedding order of the GPT and BERT families is this one."""

    vocab: int
    width: int = 0  # of the tables; 0 = the stack's, without projection
    positions: int = 0  # rows of a learned table of positions; 0 = none
    offset: int = 0  # rows of that table before position 0
    count: str = "index"  # index | nonpad (RoBERTa: pads are not counted and share one row)
    types: int = 0  # kinds of segment
    scale: float = 1.0  # of the token vectors (Gemma)
    norm: str = "none"  # none | layer
    norm_eps: float = 1e-12
    pad: int | None = None

    def __post_init__(self) -> None:
        if self.count == "nonpad" and self.pad is None:
            raise ValueError("count = 'nonpad' needs the pad id")


def _table(rows: int, width: int) -> nn.Embedding:
    """An empty table: for one on "meta" torch draws first values in Python, loading its compiler (2 s)."""
    return nn.Embedding(rows, width, _weight=torch.zeros(rows, width))


class Tokens(nn.Module):
    """Token, position and type tables."""

    def __init__(self, config: TokensConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        width = config.width or dim
        self.tokens = _table(config.vocab, width)
        self.positions = _table(config.positions, width) if config.positions else None
        self.types = _table(config.types, width) if config.types else None
        self.norm = Norm(width, config.norm, config.norm_eps) if config.norm != "none" else None
        self.project = Linear(width, dim) if width != dim else None

    def forward(self, ids: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """ids, positions, types (B, T) -> (B, T, D)."""
        x = self.tokens(ids)
        if self.config.scale != 1.0:
            x = x * x.new_full((), self.config.scale)
        if self.positions is not None:
            x = x + self.positions(self._rows(ids, positions))
        if self.types is not None:
            x = x + self.types(torch.zeros_like(ids) if types is None else types)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.project is None else self.project(x)

    def _rows(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """The rows of the position table."""
        if self.config.count == "nonpad":
            assert self.config.pad is not None
            real = torch.ne(ids, self.config.pad)
            return torch.where(real, real.cumsum(1) - 1 + self.config.offset, self.config.pad)
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return positions + self.config.offset
