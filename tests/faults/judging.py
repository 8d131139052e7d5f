"""Trainings of milliseconds of tasks that judge texts: vectors of pairs, which see each other, and labels."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.config import Train
from danlu.data.columns import Columns, ColumnWriter
from danlu.data.loader import IGNORE, Loader
from danlu.models import bert
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.tasks.sentence_embedding import SentenceEmbedding
from danlu.tasks.task import Example, Task
from danlu.tasks.text_classification import TextClassification
from danlu.train.plan import Request
from tests.train import tiny

_LABELS = ("low", "middle", "high")
_LONGEST = 12  # tokens of a text
Drawn = Callable[[np.random.Generator], Example]


def _text(random: np.random.Generator, first: int) -> list[int]:
    """Tokens that walk on from the first."""
    return [(first + 3 * at) % tiny.VOCAB for at in range(int(random.integers(3, _LONGEST)))]


def _pair(random: np.random.Generator) -> Example:
    """Two texts that begin alike; every third has a score."""
    first = int(random.integers(tiny.VOCAB))
    texts = [_text(random, first), _text(random, first + int(random.integers(2)))]
    ids = texts[0] + texts[1]
    labels = np.full(len(ids), np.nan, np.float32)
    labels[0] = random.integers(5) if random.integers(3) == 0 else np.nan
    return {"input_ids": ids, "parts": [part for part, text in enumerate(texts) for _ in text], "labels": labels}


def _labelled(random: np.random.Generator) -> Example:
    """A text whose label is the third of the vocabulary in which it begins."""
    first = int(random.integers(tiny.VOCAB))
    ids = _text(random, first)
    return {"input_ids": ids, "labels": [first * len(_LABELS) // tiny.VOCAB, *[IGNORE] * (len(ids) - 1)]}


COLUMNS: dict[str, tuple[Drawn, dict[str, str]]] = {
    "embedding": (_pair, {"input_ids": "uint16", "parts": "uint8", "labels": "float32"}),
    "labels": (_labelled, {"input_ids": "uint16", "labels": "int32"}),
}


def _task(kind: str) -> Task:
    processor: Any = tiny.Processor()
    if kind == "embedding":
        return SentenceEmbedding(processor, (), tiny.CONTEXT)
    return TextClassification(processor, _LABELS, tiny.CONTEXT)


def network(kind: str, generator: torch.Generator) -> Network:
    """One layer of BERT's form under the head of the task."""
    shape = bert.preset(tiny.VOCAB, tiny.CONTEXT, 1, width=16, heads=2, hidden=32, dropout=0.1)
    return build(_task(kind).shaped(shape), generator).train()


def request(kind: str, data: Path) -> Request:
    """`data` is a folder for the rows."""
    return Request(_task(kind), Train(), *_loaders(kind, data), begins="random", started=0.0)


def _loaders(kind: str, data: Path) -> Iterator[Loader]:
    draw, dtypes = COLUMNS[kind]
    for name, rows, seed in (("train", 120, 1), ("valid", 20, 2)):
        random, writer = np.random.Generator(np.random.PCG64(seed)), ColumnWriter(data / name, dtypes)
        for _ in range(rows):
            writer.add(draw(random))
        writer.close()
        yield Loader(Columns(data / name), tiny.CONTEXT, long="cut", seed=5, ahead=0)
