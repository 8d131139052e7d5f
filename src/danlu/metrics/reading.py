"""How well an answer matches: exactly, and in part, as the scripts of SQuAD and of CMRC 2018 say.

Rajpurkar et al. (2016, arXiv:1606.05250) compare the words of both as bags, without articles and punctuation; Cui et
al. (2019, arXiv:1810.07366) the longest common stretch of characters, Latin words being one.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_HAN = re.compile(r"[\u4e00-\u9fa5]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PARTS = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+(?:[.,'][^\W\u4e00-\u9fa5]+)*|[^\w\s]")
_SIGNS = set("-:_*^/\\~`+=，。：？！“”；’《》…·、「」（）－～『』")


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether any of the texts holds a Chinese character."""
    return any(map(_HAN.search, texts))


def scores(found: str, references: Sequence[str], *, chinese: bool) -> tuple[float, float]:
    """(exact match, F1) of an answer with the reference that is nearest; without references, "" is right."""
    one = _chinese if chinese else _english
    each = [one(found, reference) for reference in references or [""]]
    return max(exact for exact, _ in each), max(f1 for _, f1 in each)


def _english(found: str, reference: str) -> tuple[float, float]:
    ours, theirs = _words(found), _words(reference)
    if not ours or not theirs:
        return float(ours == theirs), float(ours == theirs)
    return float(ours == theirs), _f1(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def _words(text: str) -> list[str]:
    """Lower case, without ASCII punctuation, without articles."""
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return _ARTICLES.sub(" ", plain).split()


def _chinese(found: str, reference: str) -> tuple[float, float]:
    exact = float(_unsigned(found) == _unsigned(reference))
    ours, theirs = _PARTS.findall(_unsigned(found)), _PARTS.findall(_unsigned(reference))
    if not ours or not theirs:
        return exact, exact
    return exact, _f1(_common(ours, theirs), len(ours), len(theirs))


def _unsigned(text: str) -> str:
    """Lower case, without the signs that CMRC's script leaves out."""
    return "".join(char for char in text.lower().strip() if char not in _SIGNS)


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """The length of the longest stretch that both hold."""
    longest, before = 0, [0] * (len(theirs) + 1)
    for one in ours:
        now = [0] * (len(theirs) + 1)
        for place, other in enumerate(theirs, 1):
            if one == other:
                now[place] = before[place - 1] + 1
                longest = max(longest, now[place])
        before = now
    return longest


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs)
