"""Pairs of passages of running text, to learn whether they belong together (BERT, 1810.04805; ALBERT, 1909.11942)."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Ids = list[int]
SENTENCE = re.compile(r"(?<=[。！？!?…])(?![”’」』）)\"'])|(?<=[”’」』])(?<=[。！？!?…].)|(?<=[.!?])\s+|\n+")
SHORTER = 0.1  # share of the pairs that are shorter than there is room for, as later texts are
OTHERS = 64  # documents read before, from which a passage that does not follow is taken
TRUE, FALSE = 0, 1  # the labels of BERT's own files: the second passage follows, or does not


@dataclass(frozen=True)
class Pair:
    """Two passages and whether they are as the text had them."""

    first: Ids
    second: Ids
    label: int


def sentences(text: str) -> list[str]:
    """A text cut after its sentences, Chinese or English, and at its lines."""
    return [part for part in SENTENCE.split(text) if part and not part.isspace()]


def pairs(documents: Iterable[Sequence[Ids]], room: int, way: str, draws: np.random.Generator) -> Iterator[Pair]:
    """Pairs of at most `room` tokens from documents, each the ids of its sentences.

    In half of the pairs the second passage does not follow the first: with "next" it is one of another document
    (of the last ones read), with "order" the two have changed places.
    """
    before: deque[Sequence[Ids]] = deque(maxlen=OTHERS)
    for document in documents:
        for passage in _passages(document, room, draws):
            if len(passage) > 1:
                yield _paired(passage, before, room, way, draws)
        before.append(document)


def _passages(document: Sequence[Ids], room: int, draws: np.random.Generator) -> Iterator[list[Ids]]:
    """Runs of whole sentences that fill the room, or a part of it that is drawn."""
    held: list[Ids] = []
    target = _target(room, draws)
    for sentence in document:
        held.append(sentence)
        if sum(map(len, held)) >= target:
            yield held
            held, target = [], _target(room, draws)
    if held:
        yield held


def _target(room: int, draws: np.random.Generator) -> int:
    return int(draws.integers(2, room + 1)) if draws.random() < SHORTER else room


def _paired(
    passage: list[Ids], before: Sequence[Sequence[Ids]], room: int, way: str, draws: np.random.Generator
) -> Pair:
    cut = int(draws.integers(1, len(passage)))
    first, second = _joined(passage[:cut]), _joined(passage[cut:])
    label = FALSE if draws.random() < 0.5 and (way == "order" or before) else TRUE
    if label == FALSE:
        first, second = (second, first) if way == "order" else (first, _elsewhere(before, room - len(first), draws))
    _shorten(first, second, room, draws)
    return Pair(first, second, label)


def _joined(sentences: Sequence[Ids]) -> Ids:
    return [each for sentence in sentences for each in sentence]


def _elsewhere(before: Sequence[Sequence[Ids]], room: int, draws: np.random.Generator) -> Ids:
    """Sentences from a drawn place of a drawn document on, until the room is filled."""
    document = before[int(draws.integers(len(before)))]
    found: Ids = []
    for sentence in document[int(draws.integers(len(document))) :]:
        found += sentence
        if len(found) >= room:
            break
    return found


def _shorten(first: Ids, second: Ids, room: int, draws: np.random.Generator) -> None:
    """Take tokens from the longer of both until they fit, at its front or its end, whichever is drawn."""
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        del longer[0 if draws.random() < 0.5 else -1]
