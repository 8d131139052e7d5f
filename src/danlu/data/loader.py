"""Batches as a pure function of (seed, step, micro-batch): resuming needs no state, workers change nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from danlu.data.columns import Columns
from danlu.data.pack import fitted, windows
from danlu.randomness import stream

IGNORE = -100
_APART = np.int64(0x5851F42D4C957F2D)  # between the lots of two texts: odd, so that none has that of another
_LOOKED = 2**22  # tokens that are looked at together
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

    A batch holds input_ids, labels (-100 = padding or not learned), position_ids (from 0 in each window) and
    segment_ids (0 = padding), all (B, T) int64, and the other ragged columns of the rows. Labels are the tokens that
    stand `ahead` of the inputs; with 0 they are the column of that name, or left to what corrupts the batch.

    Of a whole column a batch holds the arrays of its N texts (N, ...), in order of rows and places; to train on, also
    `lots` (N,), a number drawn for each of them in each epoch.

    A column `parts` numbers, from 0, the texts that one row is made of: each is a segment of its own, and all of a row
    stand in one row of the batch, one behind the other.

    Rows are `context` long: as much as the model sees (`limit`), or a half, a quarter ... where all texts are short.
    """

    share = WHOLE  # of each batch, where several ranks work on one training

    def __init__(self, columns: Columns, context: int, *, long: str, seed: int, ahead: int = 1):
        self.tokens = columns.flat("input_ids")
        self.mask = columns.flat("loss_mask") if "loss_mask" in columns.names else None
        self.columns = columns
        self.whole = [name for name in columns.names if columns.shape(name)]
        aligned = [name for name in columns.names if name not in ("input_ids", "loss_mask", *self.whole)]
        self.others = {name: columns.flat(name) for name in aligned}
        if "parts" in self.others:  # each of them may be as long as the context
            context *= 1 + max((int(self.others["parts"][at : at + _LOOKED].max()) for at in self._pieces()), default=0)
        self.limit, self.seed, self.long, self.ahead = context, seed, long, ahead
        self.rows = len(columns)
        offsets = columns.offsets("input_ids")[:]
        self.windows = windows(offsets, context, long=long, ahead=ahead)
        self.example = np.searchsorted(offsets, self.windows.start, "right") - 1 if self.whole else None  # of windows
        self.context, self.groups = fitted(self.windows.length, context)
        self.alone = context == 1 and not ahead and "parts" not in self.others  # each row is one place, as of pictures
        if self.alone:
            self.tokens = self.tokens[:]
            self.others = {name: column[:] for name, column in self.others.items()}
        self._orders: dict[int, np.ndarray] = {}
        self._epochs: dict[int, int] = {}

    def _pieces(self) -> range:
        """Where pieces of the tokens begin that are looked at together."""
        return range(0, len(self.tokens), _LOOKED)

    def __len__(self) -> int:
        """Packed rows in one epoch."""
        return len(self.groups)

    @property
    def dropped(self) -> int:
        """Rows left out because they are longer than the context."""
        return self.rows - len(self.windows) if self.long != "split" else 0

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
        places = range(first, first + shape.rows)[self.share.of(shape.rows)]
        batch = self.assemble([self._row(place) for place in places])
        return batch | {"lots": self._lots(places)} if self.whole else batch

    def _lots(self, places: range) -> Tensor:
        """What is drawn for the texts in these rows: a function of the seed, the epoch and the text."""
        epochs = groupby(places, lambda place: place // len(self))
        found = [self._drawn(epoch, self.examples([self._row(each) for each in group])) for epoch, group in epochs]
        return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *found]))

    def _drawn(self, epoch: int, examples: np.ndarray) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {epoch: int(stream(self.seed, "lots", epoch).integers(2**62))}
        with np.errstate(over="ignore"):
            return np.int64(self._epochs[epoch]) + examples.astype(np.int64) * _APART

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
        batch = self._blank(max(1, len(rows))) | self._arrays(rows)
        (self._fill_places if self.alone and rows else self._fill)(batch, rows)
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _fill_places(self, batch: dict[str, np.ndarray], rows: list[int]) -> None:
        """Rows of one place each, all at once."""
        places = self.windows.start[np.concatenate([self.groups[row] for row in rows])]
        batch["segment_ids"][:] = 1
        for name, column in {"input_ids": self.tokens, **self.others}.items():
            batch[name][:, 0] = column[places]

    def _fill(self, batch: dict[str, np.ndarray], rows: list[int]) -> None:
        for b, row in enumerate(rows):
            at = segment = 0
            for w in self.groups[row]:
                start, size = int(self.windows.start[w]), int(self.windows.length[w])
                here = (b, slice(at, at + size))
                batch["input_ids"][here] = self.tokens[start : start + size]
                parts, places = self._parted(start, size)
                batch["position_ids"][here] = places
                batch["segment_ids"][here] = segment + 1 + parts
                segment += 1 + int(parts[-1])
                if self.ahead:
                    batch["labels"][here] = self._targets(start + self.ahead, size)
                for name, column in self.others.items():
                    batch[name][here] = column[start : start + size]
                at += size

    def _arrays(self, rows: list[int]) -> dict[str, np.ndarray]:
        """Whole columns of the texts in these rows."""
        return {name: self.columns.arrays(name, self.examples(rows)) for name in self.whole}

    def examples(self, rows: list[int]) -> np.ndarray:
        """The texts in these rows, in order."""
        assert self.example is not None
        return np.concatenate([np.empty(0, np.int64), *(self.example[self.groups[row]] for row in rows)])

    def _parted(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Of which part each of these tokens is (size,), and its place in that."""
        places = np.arange(size)
        if "parts" not in self.others:
            return np.zeros(1, np.int64), places
        parts = self.others["parts"][start : start + size].astype(np.int64)
        begins = np.flatnonzero(np.diff(parts, prepend=-1))
        return parts, places - np.repeat(begins, np.diff([*begins, size]))

    def _blank(self, rows: int) -> dict[str, np.ndarray]:
        """Padding alone: no token, no label."""
        shape = (rows, self.context)
        names = ("input_ids", "position_ids", "segment_ids", *self.others)
        batch: dict[str, np.ndarray] = {name: np.zeros(shape, dtype=self._dtype(name)) for name in names}
        labels = self.others.get("labels")
        if labels is not None and labels.dtype.kind == "f":  # a number to learn
            return batch | {"labels": np.full(shape, np.nan, dtype=np.float32)}
        return batch | {"labels": np.full(shape, IGNORE, dtype=np.int64)}

    def _dtype(self, name: str) -> type:
        column = self.others.get(name)
        return np.float32 if column is not None and column.dtype.kind == "f" else np.int64

    def _targets(self, start: int, size: int) -> np.ndarray:
        targets = self.tokens[start : start + size].astype(np.int64)
        return targets if self.mask is None else np.where(self.mask[start : start + size] != 0, targets, IGNORE)
