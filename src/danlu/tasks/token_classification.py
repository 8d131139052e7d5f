"""Learn which words of a text name something, and what: people, places, titles."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu import models
from danlu.metrics import entities
from danlu.metrics.bootstrap import Sample
from danlu.metrics.window import Window
from danlu.modalities.text import Text
from danlu.modalities.words import units
from danlu.models.architecture import Architecture
from danlu.nn.chain import best_path
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, wide
from danlu.tasks.task import Answer, Batch, Example, Row, Task, place_of, weighed

_OVERLAP = 4  # windows share one in so many of their tokens
Span = tuple[int, int, str]


class TokenClassification(Task):
    """A tag for each word: input_ids (B, T), labels (B, T) with the tag at the first token of each word (BIO).

    A text longer than the context is read in windows that overlap; each word is learned, and answered, in that in
    which it has the most context. No tag stands where it cannot: the best sequence of tags is looked for.
    """

    inputs = {"text": Text}
    outputs = {"entities": Text}
    shape = "tagged"
    known_as = ("ner",)
    stock = ("ForTokenClassification",)
    arch = "bert"
    long = "windows"
    judges = True
    selects = "entity_f1"
    labelled = True
    lone = "E253"

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        kinds = dict.fromkeys(named for *_, named in _spans(row))
        return [entities.OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]

    # --- rows ---

    def encode(self, row: Row) -> Example:
        return self.windows(row)[0]

    def windows(self, row: Row) -> list[Example]:
        ids, places = self.processor.located(row["text"])
        found = units(row["text"], places)
        labels = [IGNORE] * len(ids)
        for (_, _, token), tag in zip(found, self._tags(found, _spans(row)), strict=True):
            labels[token] = self.labels.index(tag)
        return [self._window(ids[a:b], labels[a:b], own) for a, b, own in _cuts(len(ids), self._room)]

    @property
    def _room(self) -> int:
        """Tokens of text in a window."""
        return (self.context or 2**30) - 2

    def _window(self, ids: list[int], labels: list[int], own: tuple[int, int]) -> Example:
        """The window with the labels of those tokens that are its own."""
        start, stop = own
        kept = [IGNORE] * start + labels[start:stop] + [IGNORE] * (len(ids) - stop)
        whole = [self.processor.opening, *ids, self.processor.closing]
        return {"input_ids": whole, "type_ids": [0] * len(whole), "labels": [IGNORE, *kept, IGNORE]}

    def _tags(self, found: Sequence[tuple[int, int, int]], spans: Sequence[Span]) -> list[str]:
        """The tag of each word: that of the span that it lies in, or in part."""
        inside = list[entities.Entity]()
        for start, end, named in spans:
            words = [place for place, (a, b, _) in enumerate(found) if a < end and start < b]
            if words and (not inside or words[0] >= inside[-1][2]):
                inside.append((named, words[0], words[-1] + 1))
            exact = bool(words) and (found[words[0]][0], found[words[-1]][1]) == (start, end)
            self.noticed["inexact"] += not exact
        return entities.tags(inside, len(found))

    # --- learning ---

    @property
    def choices(self) -> tuple[str, int]:
        return "C", len(self.labels)

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, len(self.labels), each=True)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (batch["labels"] != IGNORE).sum()}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        logits, labels = wide(net(batch)).flatten(0, 1), batch["labels"].flatten()
        return {"loss": F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")}

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        scores = [(wide(each), labels) for each, labels in _texts(net(batch), batch) if len(labels)]
        names = [each.log_softmax(-1).cpu() for each, _ in scores]
        found = self._best(names)
        truth = [[self.labels[label] for label in labels.tolist()] for _, labels in scores]
        sums = entities.counted(map(entities.entities, truth), map(entities.entities, found))
        right = sum(a == b for said, real in zip(found, truth, strict=True) for a, b in zip(said, real, strict=True))
        losses = [F.cross_entropy(each.double(), labels, reduction="sum").cpu() for each, labels in scores]
        return {
            "loss": torch.stack([torch.zeros((), dtype=torch.float64), *losses]).sum(),
            "tags": torch.tensor([right, sum(map(len, truth))]),
            "entities": torch.tensor([[float(n) for n in sums.get(kind, (0, 0, 0))] for kind in self._kinds]),
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        right, total = sums["tags"].tolist()
        counts = {kind: row.numpy() for kind, row in zip(self._kinds, sums["entities"], strict=True)}
        figures = {"loss": float(sums["loss"]) / max(total, 1), **entities.summary(counts)}
        return {**figures, "tag_accuracy": right / max(total, 1)}

    @property
    def _kinds(self) -> list[str]:
        """The types of entities."""
        return [label[2:] for label in self.labels if label.startswith("B-")]

    # --- answers ---

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """The logarithms of the shares of the tags of each word, (words, C)."""
        with torch.no_grad():
            logits = net(batch)
        return [{"tags": wide(each).log_softmax(-1).cpu()} for each, _ in _texts(logits, batch)]

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """The logit of a tag, of all that name something the surest, at the word where it is."""
        with torch.no_grad():
            shares = wide(net(batch))[0].softmax(-1)
        shares[batch["labels"][0] == IGNORE] = -1.0  # no word of this window begins here
        shares[:, self.labels.index(entities.OUTSIDE)] -= 0.0 if wanted == entities.OUTSIDE else 2.0
        tag = place_of(wanted, self.labels, int(shares.amax(0).argmax()))
        place = int(shares[:, tag].argmax())
        word = self.processor.show(batch["input_ids"][0, place : place + 1].tolist())[0].strip()
        return Answer(f"{self.labels[tag]} {word}", lambda seen: weighed(wide(net(seen))[:, place], tag))

    def joined(self, row: Row, found: Sequence[Row]) -> Row:
        """{"entities": [{"text", "type", "start", "end", "score"}]}: characters of the text, and the mean share of the
        tags; in order."""
        shares = torch.cat([each["tags"] for each in found])
        words = units(row["text"], self.processor.located(row["text"])[1])
        tags = self._best([shares])[0] if words else []
        sure = [float(shares[place, self.labels.index(tag)].exp()) for place, tag in enumerate(tags)]
        made = []
        for kind, first, stop in entities.entities(tags):
            start, end = words[first][0], words[stop - 1][1]
            score = sum(sure[first:stop]) / (stop - first)
            made.append({"text": row["text"][start:end], "type": kind, "start": start, "end": end, "score": score})
        return {"entities": made}

    def _best(self, shares: Sequence[Tensor]) -> list[list[str]]:
        """The best tags of each text that can stand in a row."""
        if not shares:
            return []
        lengths = torch.tensor([len(each) for each in shares])
        padded = torch.nn.utils.rnn.pad_sequence(list(shares), batch_first=True)
        steps, first = _grammar(self.labels)
        paths = best_path(padded, steps.to(padded.dtype), first.to(padded.dtype), lengths)
        return [[self.labels[tag] for tag in path[:n]] for path, n in zip(paths.tolist(), lengths, strict=True)]

    # --- figures ---

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample:
        """By the characters of the texts: what a user gets."""
        return entities.sample(map(_true, references), map(_named, predictions))

    def each(self, predictions: Sequence[Row], references: Sequence[Row]) -> list[Row]:
        return entities.table(entities.counted(map(_true, references), map(_named, predictions)))

    def error(self, prediction: Row, reference: Row) -> Row | None:
        truth, found = set(_true(reference)), set(_named(prediction))
        shown = [", ".join(f"{kind}: {reference['text'][a:b]}" for kind, a, b in sorted(those, key=lambda e: e[1:]))
                 for those in (truth - found, found - truth)]  # fmt: skip
        given = {"given": reference["text"], "wanted": shown[0], "found": shown[1], "weight": len(truth ^ found)}
        return given if truth != found else None

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Logistic regression on the words around each word."""
        read = [self._read(row) for row in train]
        model = Window([words for words, _, _ in read], [tags for _, tags, _ in read])
        answers = []
        for words, _, places in map(self._read, held_out):
            spans = entities.entities(model.predict(words))
            found = [{"type": kind, "start": places[a][0], "end": places[b - 1][1]} for kind, a, b in spans]
            answers.append({"entities": found})
        return {"window": answers}

    def _read(self, row: Row) -> tuple[list[str], list[str], list[tuple[int, int, int]]]:
        """The words of a text, their tags and their places."""
        places = units(row["text"], self.processor.located(row["text"])[1])
        return [row["text"][a:b] for a, b, _ in places], self._tags(places, _spans(row)), places


def _spans(row: Row) -> list[Span]:
    """The spans of a row to learn from, stored or not; none where it asks."""
    from danlu.data.shapes import tagged

    return tagged.loaded(row)["spans"] if row.get("spans") is not None else []


def _true(row: Row) -> list[entities.Entity]:
    return [(named, start, end) for start, end, named in _spans(row)]


def _named(prediction: Row) -> list[entities.Entity]:
    return [(each["type"], each["start"], each["end"]) for each in prediction["entities"]]


def _cuts(length: int, room: int) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Windows of `length` tokens: where each begins and ends, and which of its tokens are its own.

    Each token is in one window its own: where the nearer of that window's ends is farthest.
    """
    shared = room // _OVERLAP
    count = -(-(length - shared) // (room - shared)) if length > room else 1
    starts = [round(index * max(length - room, 0) / max(count - 1, 1)) for index in range(count)]
    edges = [0, *((before + room + after) // 2 for before, after in itertools.pairwise(starts)), length]
    for start, first, last in zip(starts, edges, edges[1:], strict=False):
        yield start, min(start + room, length), (first - start, last - start)


def _grammar(labels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """What may follow what, (C, C), and stand first, (C,): 0 or -inf. I- goes on with B- or I- of its type alone."""
    before = [{f"B-{label[2:]}", label} if label.startswith("I-") else set(labels) for label in labels]
    allowed = torch.tensor([[one in those for those in before] for one in labels])
    first = torch.tensor([not label.startswith("I-") for label in labels])
    return _or_never(allowed), _or_never(first)


def _or_never(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))


def _texts(logits: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits (words, C) and labels (words,) of each text of a batch, in their order."""
    segments = batch.get("segment_ids", torch.ones_like(batch["input_ids"]))
    words = (batch["labels"] != IGNORE) & (segments > 0)
    for row in range(len(segments)):
        for segment in segments[row].unique(sorted=True).tolist():
            if segment:
                here = words[row] & (segments[row] == segment)
                yield logits[row][here], batch["labels"][row][here]
