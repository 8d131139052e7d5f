"""Batches as a pure function of (seed, step, micro-batch): resuming needs no state, workers change nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from danlu.data.columns import Columns
from danlu.data.pack import packed, windows
from danlu.randomness import stream

IGNORE = -100
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """How an optimizer step is cut: `accumulate` micro-batches of `rows` packed rows each."""

    rows: int
    accumulate: int


@dataclass(frozen=True)
class Share:
    """Which rows of every batch one of several ranks takes: a part of equal size, in order."""

    rank: int = 0
    ranks: int = 1

    def of(self, rows: int) -> slice:
        """The places of its rows among `rows`; none where there are too few for all."""
        return slice(rows * self.rank // self.ranks, rows * (self.rank + 1) // self.ranks)


WHOLE = Share()


class Loader:
    """Packed batches of one split.

    A batch holds input_ids, labels (the token after each input; -100 = padding or not learned), position_ids
    (from 0 in each window) and segment_ids (0 = padding), all (B, T) int64.
    """

    share = WHOLE  # of each batch, where several ranks work on one training

    def __init__(self, columns: Columns, context: int, *, long: str, seed: int):
        self.tokens = columns.flat("input_ids")
        self.mask = columns.flat("loss_mask") if "loss_mask" in columns.names else None
        self.context, self.seed, self.long = context, seed, long
        self.rows = len(columns)
        self.windows = windows(columns.offsets("input_ids")[:], context, long=long)
        self.groups = packed(self.windows.length, context)
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Packed rows in one epoch."""
        return len(self.groups)

    @property
    def dropped(self) -> int:
        """Rows left out because they are longer than the context."""
        return self.rows - len(self.windows) if self.long == "drop" else 0

    @property
    def predictions(self) -> int:
        """Tokens predicted in one epoch."""
        return int(self.windows.length.sum())

    @property
    def padding(self) -> float:
        """Share of the places in packed rows that hold no token."""
        return 1 - self.predictions / max(len(self) * self.context, 1)

    def train(self, step: int, micro: int, shape: Shape) -> Batch:
        """The training batch of (step, micro-batch); the order of each epoch is its own permutation."""
        first = (step * shape.accumulate + micro) * shape.rows
        return self.assemble([self._row(first + i) for i in range(shape.rows)[self.share.of(shape.rows)]])

    def _row(self, position: int) -> int:
        epoch, place = divmod(position, len(self))
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = stream(self.seed, "order", epoch).permutation(len(self))
        return int(self._orders[epoch][place])

    def evaluation(self, rows: int, limit: int | None = None) -> Iterator[Batch]:
        """All packed rows in order, or the first `limit` of a fixed permutation."""
        order = np.arange(len(self)) if limit is None else stream(0, "evaluation").permutation(len(self))[:limit]
        for first in range(0, len(order), rows):
            here = order[first : first + rows]
            yield self.assemble([int(i) for i in here[self.share.of(len(here))]])

    def assemble(self, rows: list[int]) -> Batch:
        """Packed rows as one batch; every row is `context` long. Without rows it is one of padding alone."""
        shape = (max(1, len(rows)), self.context)
        ids, positions, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        labels = np.full(shape, IGNORE, dtype=np.int64)
        for b, row in enumerate(rows):
            at = 0
            for segment, w in enumerate(self.groups[row], 1):
                start, size = int(self.windows.start[w]), int(self.windows.length[w])
                here = slice(at, at + size)
                ids[b, here] = self.tokens[start : start + size]
                labels[b, here] = self._targets(start + 1, size)
                positions[b, here] = np.arange(size)
                segments[b, here] = segment
                at += size
        arrays = {"input_ids": ids, "labels": labels, "position_ids": positions, "segment_ids": segments}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _targets(self, start: int, size: int) -> np.ndarray:
        targets = self.tokens[start : start + size].astype(np.int64)
        return targets if self.mask is None else np.where(self.mask[start : start + size] != 0, targets, IGNORE)
