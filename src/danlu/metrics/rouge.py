"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004): what a summary shares with the true one, as F1 of 100.

Words without case; of Chinese, characters, which the package of that name would leave out.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")


def scores(pairs: Sequence[tuple[str, str]]) -> dict[str, NDArray[np.float64]]:
    """{"rouge_1", "rouge_2", "rouge_l"}: (N,) of N pairs of a summary that was found and the true one."""
    words = [tuple(_WORD.findall(each.lower()) for each in pair) for pair in pairs]
    return {
        "rouge_1": np.array([_shared(found, wanted, 1) for found, wanted in words]),
        "rouge_2": np.array([_shared(found, wanted, 2) for found, wanted in words]),
        "rouge_l": np.array([_f1(common(found, wanted), len(found), len(wanted)) for found, wanted in words]),
    }


def _shared(found: Sequence[str], wanted: Sequence[str], order: int) -> float:
    one, other = (Counter(zip(*(words[at:] for at in range(order)), strict=False)) for words in (found, wanted))
    return _f1((one & other).total(), one.total(), other.total())


def _f1(shared: int, found: int, wanted: int) -> float:
    return 200 * shared / (found + wanted) if found and wanted else 0.0


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence: a row of its table is one number of len(one) bits (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    full = row = (1 << len(one)) - 1
    for word in other:
        same = row & places.get(word, 0)
        row = (row + same | row - same) & full
    return len(one) - row.bit_count()
