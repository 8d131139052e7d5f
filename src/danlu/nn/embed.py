"""Token ids to vectors: the sum of tables, then a norm, then a projection, each where the model has one.

Shapes: B batch · T time · W table width · D width of the stack
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from danlu.nn.linear import Linear
from danlu.nn.norm import Norm


@dataclass(frozen=True)
class TokensConfig:
    """Every embedding order of the GPT and BERT families is this one."""

    vocab: int
    width: int = 0  # of the tables; 0 = the stack's, without projection
    positions: int = 0  # rows of a table of positions; 0 = none
    table: str = "learned"  # of the positions: learned | sinusoid (1706.03762, sines before cosines; no parameter)
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
        if self.table not in ("learned", "sinusoid"):
            raise ValueError(f"table must be one of learned, sinusoid; got {self.table!r}")


def table_of(rows: int, width: int) -> nn.Embedding:
    """An empty table: for one on "meta" torch draws first values in Python, loading its compiler (2 s)."""
    return nn.Embedding(rows, width, _weight=torch.zeros(rows, width))


class Table(nn.Embedding):
    """Vectors by id. In a training that computes in 16 bits it stays as it is, and what is looked up is lowered.

    So it needs no copy, and the gradients of a token that occurs often are summed in fp32.
    """

    computed: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width, _weight=torch.zeros(rows, width))
        self.register_buffer("computed", torch.empty(0), persistent=False)  # its dtype goes with that of the network

    def lower(self, dtype: torch.dtype) -> None:
        """Give vectors in `dtype` until the network is converted."""
        self.computed = self.computed.to(dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., W)."""
        vectors = super().forward(ids)
        return vectors if self.computed.dtype == torch.float32 else vectors.to(self.computed.dtype)


class Tokens(nn.Module):
    """Token, position and type tables; the token table may be another embedding's (`shared`)."""

    reads: ClassVar = "input_ids"

    def __init__(self, config: TokensConfig, dim: int, shared: nn.Embedding | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.width or dim
        self.share(shared)
        self.tokens = Table(config.vocab, width) if shared is None else None
        learned = config.positions and config.table == "learned"
        self.positions = table_of(config.positions, width) if learned else None
        self.types = table_of(config.types, width) if config.types else None
        self.norm = Norm(width, config.norm, config.norm_eps) if config.norm != "none" else None
        self.project = Linear(width, dim) if width != dim else None

    def share(self, table: nn.Module | None) -> None:
        """Read vectors from `table`; a tuple hides the module, so that the state holds it once."""
        self._shared = (table,)

    def forward(self, ids: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """ids, positions, types (B, T) -> (B, T, D)."""
        x: Tensor = self._vectors(ids)
        if self.config.scale != 1.0:
            x = x * x.new_full((), self.config.scale)
        if self.positions is not None:
            x = x + self.positions(self._rows(ids, positions))
        elif self.config.table == "sinusoid":
            x = x + sinusoid(self._rows(ids, positions), x.shape[-1]).to(x.dtype)
        if self.types is not None:
            x = x + self.types(torch.zeros_like(ids) if types is None else types)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.project is None else self.project(x)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in, whatever the table is stored as."""
        return self._vectors(torch.empty(0, dtype=torch.long, device=self._device)).dtype

    @property
    def _device(self) -> torch.device:
        table = self.tokens if self._shared[0] is None else self._shared[0]
        assert table is not None
        return next(tensor.device for tensor in (*table.parameters(), *table.buffers()))

    def _vectors(self, ids: Tensor) -> Tensor:
        """(...) -> (..., W)."""
        table = self.tokens if self._shared[0] is None else self._shared[0]
        vectors: Tensor = table(ids)  # type: ignore[misc]
        return vectors

    def _rows(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """The rows of the position table."""
        if self.config.count == "nonpad":
            assert self.config.pad is not None
            real = torch.ne(ids, self.config.pad)
            counted = real.cumsum(1) - 1 if positions is None else positions
            return torch.where(real, counted + self.config.offset, self.config.pad)
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return positions + self.config.offset


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """positions (...) -> (..., width) fp32: sin(p / 10000^(2i / width)) for each i, then the cosines (1706.03762)."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
    angles = positions[..., None].double() / 10_000.0**exponents
    return torch.cat((angles.sin(), angles.cos()), -1)[..., :width].float()
