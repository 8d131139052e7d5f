"""What the network really sees: the first batch of a training, token by token, with what is learned of each."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from danlu.api.fitting import opened
from danlu.data.loader import IGNORE, Shape
from danlu.messages import text
from danlu.nn.network import DECODER
from danlu.randomness import generator

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained


@dataclass(frozen=True)
class Place:
    """One place of a row: the token that stands there, what is to be learned of it, and its text in the row."""

    token: str
    label: str  # "" where nothing is learned
    segment: int  # tokens of one number see each other; 0 is padding


class Seen:
    """The rows of a batch as `Place`s, and the batch itself, its tensors (B, T) by name."""

    def __init__(self, model: "Pretrained", batch: dict[str, Tensor], rows: int):
        self.batch = {name: tensor[:rows] for name, tensor in batch.items()}
        self.rows = [_places(model, self.batch, row) for row in range(len(self.batch["input_ids"]))]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.batch.items())
        return "\n".join([text("api.seen", shapes=shapes), *map(_line, self.rows)])

    def _repr_html_(self) -> str:
        style = ".danlu-seen td{padding:1px 6px;text-align:center;font:12px monospace}.danlu-seen .pad{opacity:.35}"
        return f"<style>{style}</style>" + "".join(map(_table, self.rows))


def _places(model: "Pretrained", batch: dict[str, Tensor], row: int) -> list[Place]:
    """What is read, and then what is written, where there are two sides; labels stand on the last."""
    sides = [side for side in ("", DECODER) if f"{side}input_ids" in batch]
    return [place for side in sides for place in _side(model, batch, row, side, learns=side == sides[-1])]


def _side(model: "Pretrained", batch: dict[str, Tensor], row: int, side: str, *, learns: bool) -> list[Place]:
    ids = batch[f"{side}input_ids"]
    tokens = model.processor.show(ids[row].tolist())
    segments = batch.get(f"{side}segment_ids", torch.ones_like(ids))[row].tolist()
    labels = batch["labels"][row].tolist() if learns and "labels" in batch else [IGNORE] * len(tokens)
    return [Place(token, _label(model, label), segment)
            for token, label, segment in zip(tokens, labels, segments, strict=True)]  # fmt: skip


def _label(model: "Pretrained", label: Any) -> str:
    """A label as people know it: a class, a token, a number."""
    if label == IGNORE or label != label:
        return ""
    if isinstance(label, int) and model.task.labels:
        return model.task.labels[label] if 0 <= label < len(model.task.labels) else str(label)
    if isinstance(label, int) and model.task.choices[1] == model.processor.vocab_size:
        return model.processor.show([label])[0]
    return f"{label:g}"


def _line(row: list[Place]) -> str:
    """A row in one line: tokens with what is learned of them in arrows, | between texts, padding counted."""
    parts, before = [], 0
    for place in (each for each in row if each.segment):
        parts += ["|"] if before and place.segment != before else []
        parts.append(f"{place.token}→{place.label}" if place.label else place.token)
        before = place.segment
    padding = sum(not each.segment for each in row)
    return " ".join([*parts, *([f"[+{padding}]"] if padding else [])])


def _table(row: list[Place]) -> str:
    """A row of tokens, and below it their labels and the text that each belongs to."""
    lines = [[each.token for each in row], [each.label for each in row], [str(each.segment) for each in row]]
    kinds = ["" if each.segment else ' class="pad"' for each in row]
    cells = (
        "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(line, kinds, strict=True)) for line in lines
    )
    table = "".join(f"<tr>{each}</tr>" for each in cells)
    return f'<div style="overflow-x:auto"><table class="danlu-seen">{table}</table></div>'


def show(model: "Pretrained", data: Any, rows: int, quiet: bool, given: dict[str, Any]) -> Seen:
    """The first batch of a training; arguments as of `Pretrained.show_batch`."""
    with opened(model, data, None, quiet, given, "show_batch") as work:
        loader = work.request().loader
        batch = loader.train(0, 0, Shape(min(rows, len(loader)), 1))
        batch = model.task.corrupt(batch, generator(work.recipe.seed, "corrupt", 0, 0))
        return Seen(model, model.task.staged(batch, 0.0), rows)
