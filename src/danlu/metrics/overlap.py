"""The sentence of a text that is most about a question: what a reader must beat to be worth its weights.

Richardson et al. (2013, MCTest) found the overlap of words a strong simple reader.
"""

import math
import re
from collections import Counter

_SENTENCE = re.compile(r"[^.!?。！？；\n]+[.!?。！？；]*")
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


def best_sentence(question: str, context: str) -> str:
    """The sentence with the highest sum of how rare each word is that it shares with the question."""
    found = sentences(context)
    words = [set(_WORD.findall(each.lower())) for each in found]
    seen = Counter(word for each in words for word in each)
    asked = set(_WORD.findall(question.lower()))
    sums = [sum(math.log(1 + len(found) / seen[word]) for word in each & asked) for each in words]
    return found[sums.index(max(sums))] if found else ""


def sentences(text: str) -> list[str]:
    """The sentences of a text, Chinese or spaced."""
    return [each.strip() for each in _SENTENCE.findall(text) if each.strip()]
