"""Pack windows of ragged rows into full rows of the context's length, without cropping and nearly without padding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_SHORTEST = 64  # tokens of a row, at least
_WASTE = 0.05  # share of the places that may stay empty, so that rows are shorter


@dataclass(frozen=True)
class Windows:
    """Pieces of rows: piece i is the `length[i]` inputs at flat position `start[i]`."""

    start: Ints  # (W,)
    length: Ints  # (W,)

    def __len__(self) -> int:
        return len(self.start)


def windows(offsets: Ints, context: int, *, long: str, ahead: int = 1) -> Windows:
    """Cut rows of n tokens (n - ahead inputs) into pieces of at most `context`; `long` = "split", else they go."""
    predictions = np.maximum(np.diff(offsets) - ahead, 0)
    whole = (predictions > 0) & (predictions <= context)
    pieces = -(-predictions // context) if long == "split" else whole.astype(np.int64)
    row = np.repeat(np.arange(len(predictions)), pieces)
    index = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    length = np.minimum(predictions[row] - index * context, context)
    return Windows(offsets[:-1][row] + index * context, length)


def fitted(lengths: Ints, context: int) -> tuple[int, list[Ints]]:
    """The length of rows, and the windows of each: `context`, halved as often as windows fit and little is wasted.

    Windows see nothing of each other, so that a shorter row changes nothing but what attention costs: the square of it.
    """
    made: dict[int, list[Ints]] = {}
    for form in halved(context, int(lengths.max()) if len(lengths) else context):
        made[form] = packed(lengths, form)
        if lengths.sum() >= (1 - _WASTE) * len(made[form]) * form:
            break  # no other row holds much more
    fewest = min(form * len(rows) for form, rows in made.items())
    return next((form, rows) for form, rows in made.items() if form * len(rows) <= (1 + _WASTE) * fewest)


def halved(context: int, longest: int) -> list[int]:
    """The lengths that rows can have, the shortest first: halves of the context that hold the longest window."""
    forms = [context]
    while forms[0] % 2 == 0 and forms[0] // 2 >= max(_SHORTEST, longest):
        forms.insert(0, forms[0] // 2)
    return forms


def packed(lengths: Ints, context: int) -> list[Ints]:
    """Groups of windows whose lengths sum to at most `context`: best-fit decreasing (Johnson 1973), in a fixed order.

    Buckets by free space make it O(W log context); the longest windows open rows, shorter ones fill the tightest gap.
    """
    order = np.argsort(-lengths, kind="stable")
    rows: list[list[int]] = []
    gaps: list[list[int]] = [[] for _ in range(context + 1)]  # free space -> rows with that much
    filled = np.zeros(context + 1, dtype=bool)
    for window in order:
        size = int(lengths[window])
        fits = np.flatnonzero(filled[size:])
        if len(fits):
            gap = size + int(fits[0])
            row = gaps[gap].pop()
            filled[gap] = bool(gaps[gap])
            rows[row].append(int(window))
        else:
            gap, row = context, len(rows)
            rows.append([int(window)])
        if gap > size:
            gaps[gap - size].append(row)
            filled[gap - size] = True
    return [np.array(row) for row in rows]
