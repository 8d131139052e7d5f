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
    sentences = [each.strip() for each in _SENTENCE.findall(context) if each.strip()]
    words = [set(_WORD.findall(each.lower())) for each in sentences]
    seen = Counter(word for each in words for word in each)
    asked = set(_WORD.findall(question.lower()))
    sums = [sum(math.log(1 + len(sentences) / seen[word]) for word in each & asked) for each in words]
    return sentences[sums.index(max(sums))] if sentences else ""
