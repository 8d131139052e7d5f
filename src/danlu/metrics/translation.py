"""BLEU (Papineni et al. 2002) and chrF (Popović 2015) of translations, as sacreBLEU has them (Post 2018, 1804.08771).

Shapes: N sentences · R rounds of drawn counts
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from danlu.metrics.bootstrap import Figures, Floats, Sample

ORDER, CHARACTERS, BETA = 4, 6, 2.0  # n-grams of words, of characters, and how much more recall weighs
_WIDE = re.compile(
    r"([\u2001-\u2a6d\u2e80-\u303f\u3100-\u312f\u31a0-\u31ef\u3200-\u4db5\u4e00-\u9fbb\uf900-\ufad9\ufe10-\ufe1f"
    r"\ufe30-\ufe4f\uff00-\uffef])"
)
_HAN = re.compile(r"[\u3400-\u9fff]")
_SIGN = re.compile(r"([{|}~\[\\\]^_`!\"#$%&()*+:;<=>?@/])")
_STOPS = (  # a full stop or comma that is not inside a number; a hyphen after a digit
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def sample(found: Sequence[str], wanted: Sequence[str]) -> Sample:
    """N translations beside the true ones: {"bleu", "chrf"}, of 100, from the counts of all together.

    Where most of the true ones hold Chinese characters, each of these is a word of BLEU's.
    """
    chinese = 2 * sum(_HAN.search(each) is not None for each in wanted) > len(wanted)
    pairs = list(zip(found, wanted, strict=True))
    words = np.array([list(_words(*pair, chinese=chinese)) for pair in pairs], float).reshape(len(pairs), -1)
    characters = np.array([list(_characters(*pair)) for pair in pairs], float).reshape(len(pairs), -1)

    def statistic(drawn: Floats) -> Figures:
        return {"bleu": _bleu(drawn @ words), "chrf": _chrf(drawn @ characters)}

    return Sample(np.ones(len(pairs), np.int64), statistic)


def chrf(found: str, wanted: str) -> float:
    """Of one sentence."""
    return float(_chrf(np.array([list(_characters(found, wanted))], float))[0])


def tokens(text: str, *, chinese: bool) -> list[str]:
    """The words that BLEU counts, as mteval-v13a cuts them; each Chinese character and sign alone."""
    if chinese:
        text = _WIDE.sub(r" \1 ", text.strip())
    else:
        text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
        for written, meant in _ENTITIES:
            text = text.replace(written, meant)
        text = f" {text} "
    text = _SIGN.sub(r" \1 ", text)
    for pattern, apart in _STOPS:
        text = pattern.sub(apart, text)
    return text.split()


def _words(found: str, wanted: str, *, chinese: bool) -> Iterator[int]:
    """What is shared and how many there are of each order, then the two lengths."""
    ours, theirs = (tokens(each, chinese=chinese) for each in (found, wanted))
    for order in range(1, ORDER + 1):
        one, other = _grams(ours, order), _grams(theirs, order)
        yield from ((one & other).total(), one.total())
    yield from (len(ours), len(theirs))


def _characters(found: str, wanted: str) -> Iterator[int]:
    """What is shared, and how many there are on both sides, of each order; none of one that the true one lacks."""
    ours, theirs = ("".join(each.split()) for each in (found, wanted))
    for order in range(1, CHARACTERS + 1):
        one, other = _grams(ours, order), _grams(theirs, order)
        yield from ((one & other).total(), one.total() if other else 0, other.total())


def _grams(parts: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(parts[at:] for at in range(order)), strict=False))


def _bleu(sums: Floats) -> Floats:
    """Of sums (R, 2 * ORDER + 2): an order of which nothing is shared counts half, a fourth, ... of one (Chen 2014)."""
    shared, there, (ours, theirs) = sums[:, 0:-2:2], sums[:, 1:-2:2], sums[:, -2:].T
    halves = 0.5 ** (shared == 0).cumsum(1)
    precision = np.where(shared > 0, shared, halves) / np.maximum(there, 1)
    short = np.exp(np.minimum(0, 1 - theirs / np.maximum(ours, 1)))
    whole = 100 * short * np.exp(np.log(precision).mean(1))
    return np.where((shared.sum(1) > 0) & (there[:, -1] > 0), whole, 0.0)


def _chrf(sums: Floats) -> Floats:
    """Of sums (R, 3 * CHARACTERS): precision and recall are means over the orders that both have."""
    shared, ours, theirs = (sums[:, at::3] for at in range(3))
    both = (ours > 0) & (theirs > 0)
    orders = np.maximum(both.sum(1), 1)
    precision, recall = ((np.where(both, shared / np.maximum(n, 1), 0)).sum(1) / orders for n in (ours, theirs))
    beside = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / np.where(beside > 0, beside, 1)
