"""An n-gram model with interpolated Kneser-Ney smoothing: the baseline that a network has to beat.

Source: Kneser & Ney 1995; Chen & Goodman 1999, section 3, with one discount per order, D = n1 / (n1 + 2 n2).
Counting is vectorised: a k-gram is the pair (its first k-1 tokens' id, its last token), numbered by sorting.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """All k-grams seen: sorted keys (context id * V + token), their counts, and what each context adds up to."""

    keys: Ints
    counts: Floats
    total: Floats  # per context
    types: Floats  # per context: how many different tokens follow
    discount: float


class NGram:
    """Trained on a token sequence (N,) over a vocabulary of `vocab` tokens."""

    def __init__(self, tokens: NDArray[np.integer], vocab: int, order: int):
        self.vocab = vocab
        self.orders: list[_Order] = []
        tokens = tokens.astype(np.int64)
        context = np.zeros(len(tokens) + 1, dtype=np.int64)  # id of the (k-1)-gram before each token
        grams = []
        for k in range(1, min(order, len(tokens)) + 1):
            places = np.arange(k - 1, len(tokens))
            keys, first, ids, counts = np.unique(
                context[places] * vocab + tokens[places], return_index=True, return_inverse=True, return_counts=True
            )
            grams.append((keys, context[places][first], counts, places, ids, places[first]))
            context = np.zeros(len(tokens) + 1, dtype=np.int64)
            context[places + 1] = ids
        self._count(grams)

    def _count(self, grams: list[tuple[Ints, Ints, Ints, Ints, Ints, Ints]]) -> None:
        """Raw counts for the highest order, numbers of different predecessors for the lower ones."""
        for k, (keys, contexts, counts, places, ids, _) in enumerate(grams):
            weights = counts.astype(np.float64)
            if k + 1 < len(grams):
                of_place = np.full(int(places[-1]) + 1, -1, dtype=np.int64)
                of_place[places] = ids
                weights = np.bincount(of_place[grams[k + 1][5]], minlength=len(keys)).astype(np.float64)
                weights = np.maximum(weights, 1.0)  # a gram at the very start has no predecessor
            size = int(contexts.max()) + 1
            once, twice = float((weights == 1).sum()), float((weights == 2).sum())
            self.orders.append(
                _Order(
                    keys,
                    weights,
                    np.bincount(contexts, weights, size).astype(np.float64),
                    np.bincount(contexts, minlength=size).astype(np.float64),
                    once / (once + 2 * twice) if once else 0.5,  # never 0: a token not seen keeps a share
                )
            )

    def probabilities(self, tokens: NDArray[np.integer]) -> Floats:
        """P(token | the tokens before it) for each token of a sequence (N,)."""
        tokens = tokens.astype(np.int64)
        p = np.full(len(tokens), 1.0 / self.vocab)
        context = np.zeros(len(tokens), dtype=np.int64)  # -1: a context that was never seen
        for k, order in enumerate(self.orders):
            known = context >= 0
            key = np.where(known, context * self.vocab + tokens, 0)
            found = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
            seen = known & (order.keys[found] == key)
            inside = np.where(known & (context < len(order.total)), context, 0)
            usable = known & (context < len(order.total)) & (order.total[inside] > 0)
            total = np.where(usable, order.total[inside], 1.0)
            own = np.where(seen, np.maximum(order.counts[found] - order.discount, 0.0), 0.0)
            mixed = (own + order.discount * order.types[inside] * p) / total
            p = np.where(usable, mixed, p)
            ids = np.where(seen, found, -1)
            context = np.concatenate(([-1], ids[:-1])) if len(tokens) else context
            if k + 1 < len(self.orders):
                context[: k + 1] = -1
        return p

    def bits_per_byte(self, tokens: NDArray[np.integer], predicted: NDArray[np.bool_], byte_lengths: Ints) -> float:
        """-log2 P over the `predicted` tokens, per byte that they stand for."""
        bits = -np.log2(self.probabilities(tokens)[predicted]).sum()
        return float(bits / max(1, byte_lengths[tokens[predicted].astype(np.int64)].sum()))
