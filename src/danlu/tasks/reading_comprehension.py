"""Learn to find the place of a text that answers a question."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danlu import models
from danlu.data.shapes import question as shape_of_rows
from danlu.metrics import reading
from danlu.metrics.bootstrap import Sample, means
from danlu.metrics.overlap import best_sentence
from danlu.modalities.text import Text
from danlu.modalities.words import units
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, wide
from danlu.nn.masks import openings
from danlu.tasks.task import Answer, Batch, Example, Row, Task, place_of

START, END = 1, 2  # bits of a label
ANSWER, NONE = "answer", "no_answer"
_ASKED = 4  # a question takes at most one in so many places of a window
_BEST, _SHOWN = 20, 3  # starts and ends that are tried together; answers that are shown beside the best


@dataclass(frozen=True)
class _Read:
    """A row as ids: `first` and `last` say of each token of the context where its word begins and ends."""

    question: list[int]
    context: list[int]
    first: list[int]  # in characters; -1 for a token that begins no word
    last: list[int]


class ReadingComprehension(Task):
    """A start and an end among the tokens of a text: input_ids (B, T), labels (B, T) of bits.

    1 marks where the answer begins and 2 where it ends; 0 is a token that it could be, and -100 none. A text longer
    than the context is read in windows that overlap, each behind the question (Devlin et al. 2019); in a window that
    does not hold the answer, both stand at its first token, which says so.
    """

    inputs = {"question": Text, "context": Text}
    outputs = {"answer": Text}
    shape = "question"
    arch = "bert"
    known_as = ("question-answering",)
    stock = ("ForQuestionAnswering",)
    long = "windows"
    judges = True
    selects = "window_accuracy"
    labelled = True
    lone = ""
    options = {
        "overlap": (0.33, [0.0, 0.9], "share of a window that the next one holds too"),
        "longest": (64, [1, 1000], "tokens of an answer, at most"),
    }

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        return [ANSWER if _answers(row) else NONE]

    # --- rows ---

    def encode(self, row: Row) -> Example:
        return self.windows(row)[0]

    def windows(self, row: Row) -> list[Example]:
        read = self._read(row)
        answer = self._place(read, _answers(row))
        return [self._window(read, start, stop, answer) for start, stop in self._cuts(read)]

    def _read(self, row: Row) -> _Read:
        """Only words begin and end answers, so that no part of one is given."""
        ids, places = self.processor.located(row["context"])
        asked, room = self.processor.encode(row["question"]), self._room // _ASKED
        self.noticed["question_cut"] += len(asked) > room
        first, last = [-1] * len(ids), [-1] * len(ids)
        words = units(row["context"], places)
        for (begin, end, token), after in zip(words, [*(word[2] for word in words[1:]), len(ids)], strict=True):
            first[token] = begin
            last[token:after] = [end] * (after - token)
        return _Read(asked[:room], ids, first, last)

    @property
    def _room(self) -> int:
        """Tokens of a window without those that control."""
        return (self.context or 2**30) - 4

    def _cuts(self, read: _Read) -> Iterator[tuple[int, int]]:
        """Where the windows begin and end among the tokens of the context."""
        room = self._room - len(read.question)
        step = max(1, room - int(room * self.chosen["overlap"]))
        for start in range(0, max(len(read.context) - room, 0) + step, step):
            yield start, min(start + room, len(read.context))
            if start + room >= len(read.context):
                return

    def _place(self, read: _Read, answers: Sequence[shape_of_rows.Answer]) -> tuple[int, int] | None:
        """The first and the last token of the first answer that stands in the context; None where none does."""
        said, start = next(((said, start) for said, start in answers if start >= 0), ("", -1))
        if start < 0:
            return None
        begins = [token for token, begin in enumerate(read.first) if begin >= 0]
        inside = [token for token in begins if read.first[token] < start + len(said) and read.last[token] > start]
        if not inside:
            return None
        after = next((token for token in begins if token > inside[-1]), len(read.context))
        return inside[0], after - 1

    def _window(self, read: _Read, start: int, stop: int, answer: tuple[int, int] | None) -> Example:
        ids, kinds = self.processor.joined_ids(read.question, read.context[start:stop])
        labels = [IGNORE] * len(ids)
        begins = len(ids) - 1 - (stop - start)
        labels[begins : len(ids) - 1] = [0] * (stop - start)
        if answer and start <= answer[0] and answer[1] < stop:
            labels[0] = 0
            labels[begins + answer[0] - start] += START
            labels[begins + answer[1] - start] += END
        else:
            labels[0] = START + END
        return {"input_ids": ids, "type_ids": kinds, "labels": labels}

    # --- learning ---

    @property
    def choices(self) -> tuple[str, int]:
        return "T", self.context or 2

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.span_head(architecture)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": _marked(batch["labels"], START).sum()}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        """Half the cross-entropy of the start, and half that of the end, each among the tokens of its window."""
        shares, labels, _ = _shares(net(batch), batch)
        chosen = shares[:, 0][_marked(labels, START)].sum() + shares[:, 1][_marked(labels, END)].sum()
        return {"loss": -chosen / 2}

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        shares, labels, window = (each.cpu() for each in _shares(net(batch), batch))
        windows = int(window.max()) + 1 if len(window) else 0
        right = torch.ones(windows, dtype=torch.bool)
        losses = torch.zeros((), dtype=torch.float64)
        for side, bit in enumerate((START, END)):
            truth = _marked(labels, bit)
            losses -= shares[:, side][truth].double().sum() / 2
            highest = torch.full((windows,), float("-inf"), dtype=shares.dtype).scatter_reduce(
                0, window, shares[:, side], "amax"
            )
            right[window[truth]] &= shares[:, side][truth] == highest[window[truth]]
        return {"loss": losses, "right": right.sum(), "windows": torch.tensor(float(windows))}

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        windows = max(sums["windows"], 1)
        return {"loss": sums["loss"] / windows, "window_accuracy": sums["right"] / windows}

    # --- answers ---

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """The logarithms of the shares of each window's first token, and of those of its text: (1 + N, 2)."""
        with torch.no_grad():
            shares, _, window = (each.cpu() for each in _shares(net(batch), batch))
        return [{"shares": shares[window == index]} for index in range(int(window[-1]) + 1)]

    def joined(self, row: Row, found: Sequence[Row]) -> Row:
        """{"text", "start", "end", "score", "others"}: the best answer, its characters in the context, and the next.

        The text is "" and start and end are None where the model learned that there may be no answer, and finds none.
        """
        read, best = self._read(row), dict[tuple[int, int], float]()
        for (start, _), window in zip(self._cuts(read), found, strict=True):
            for span, score in self._spans(read, start, window["shares"][1:]):
                best[span] = max(best.get(span, 0.0), score)
        ranked = sorted(best.items(), key=lambda each: (-each[1], each[0]))[: _SHOWN + 1]
        said: list[Row] = [
            {"text": row["context"][a:b], "start": a, "end": b, "score": score} for (a, b), score in ranked
        ]
        if NONE in self.labels or not said:
            nothing = min((float(window["shares"][0].sum().exp()) for window in found), default=1.0)
            said.append({"text": "", "start": None, "end": None, "score": nothing})
            said.sort(key=lambda each: -each["score"])
        return {**said[0], "others": said[1 : _SHOWN + 1]}

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """The logits of where the best answer of a window begins and ends, added."""
        return self.explained(net, [batch], wanted)[1]

    def explained(self, net: Any, windows: Sequence[Batch], wanted: str = "") -> tuple[int, Answer]:
        """The window with the best answer; where the text has none that is as likely, the one that is least sure."""
        place_of(wanted, (), 0)
        with torch.no_grad():
            shares = [_shares(net(each), each)[0].cpu() for each in windows]
        spans = [self._best(*each) for each in zip(shares, map(_answerable, windows), strict=True)]
        nothing = [float(each[0].sum()) if NONE in self.labels else float("-inf") for each in shares]
        best = max(range(len(windows)), key=lambda window: spans[window][0])
        least = min(range(len(windows)), key=nothing.__getitem__)
        if nothing[least] > spans[best][0]:
            return least, self._answer(net, windows[least], 0, 0)
        return best, self._answer(net, windows[best], *spans[best][1:])

    def _answer(self, net: Any, batch: Batch, start: int, end: int) -> Answer:
        """From the one to the other of the places that may be answers; from the first of all: that there is none."""
        places = (batch["labels"][0] != IGNORE).nonzero().flatten().tolist()
        found = batch["input_ids"][0, places[start] : places[end] + 1].tolist()

        def figures(seen: Batch) -> tuple[Tensor, Tensor]:
            logits = net(seen)
            whole = _shares(logits, seen)[0].view(len(logits), -1, 2)
            score = logits[:, places[start], 0] + logits[:, places[end], 1]
            return score, (whole[:, start, 0] + whole[:, end, 1]).exp()

        return Answer(self.processor.decode(found).strip() if start else NONE, figures)

    def _best(self, shares: Tensor, ids: list[int]) -> tuple[float, int, int]:
        """The logarithm of the highest share of a span of whole words, and its places; -inf where there is no word."""
        inside = torch.tensor([self.processor.inside()[index] for index in ids])
        begins, ends = ~inside, torch.cat([~inside[1:], torch.ones(1, dtype=torch.bool)])
        both = shares[:, :1] + shares[:, 1:].T
        apart = torch.arange(len(ids)) - torch.arange(len(ids))[:, None]
        allowed = begins[:, None] & ends & (apart >= 0) & (apart < self.chosen["longest"])
        allowed[0] = allowed[:, 0] = False
        both = both.masked_fill(~allowed, float("-inf"))
        best = int(both.argmax())
        return float(both.max()), best // len(ids), best % len(ids)

    def _spans(self, read: _Read, start: int, shares: Tensor) -> Iterator[tuple[tuple[int, int], float]]:
        """Answers of a window, (begin, end) in characters, and their shares."""
        begins, ends = (shares[:, side].topk(min(_BEST, len(shares))) for side in (0, 1))
        for token, one in zip(begins.indices.tolist(), begins.values.tolist(), strict=True):
            for last, other in zip(ends.indices.tolist(), ends.values.tolist(), strict=True):
                begin, end = read.first[start + token], read.last[start + last]
                if begin >= 0 and begin < end and token <= last < token + self.chosen["longest"]:
                    yield (begin, end), float(torch.tensor(one + other).exp())

    # --- figures ---

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        exact, f1 = np.array([_matched(*pair) for pair in zip(predictions, references, strict=True)]).T
        return means({"answer_f1": f1, "exact_match": exact})

    def right(self, prediction: Row, reference: Row) -> bool:
        return bool(_matched(prediction, reference)[0])

    def told(self, answer: Row) -> str:
        return str(answer["text"] if "text" in answer else " / ".join(said for said, _ in _answers(answer))) or "—"

    def error(self, prediction: Row, reference: Row) -> Row | None:
        exact, f1 = _matched(prediction, reference)
        if exact:
            return None
        wanted = " / ".join(dict.fromkeys(said for said, _ in _answers(reference))) or "—"
        given = f"{reference['question']}\n{_around(reference)}"
        found = prediction["text"] or "—"
        return {"given": given, "wanted": wanted, "found": found, "weight": 1 - f1 + prediction.get("score", 0.0)}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """The sentence that shares most words with the question."""
        return {"sentence": [{"text": best_sentence(row["question"], row["context"])} for row in held_out]}


def _answers(row: Row) -> list[shape_of_rows.Answer]:
    """The answers of a row to learn from, stored or not; none where it asks."""
    return shape_of_rows.loaded(row)["answers"] if row.get("answers") is not None else []


def _matched(prediction: Row, reference: Row) -> tuple[float, float]:
    """Exact match and F1."""
    wanted = [said for said, _ in _answers(reference)]
    return reading.scores(prediction["text"], wanted, chinese=reading.is_chinese([reference["question"], *wanted]))


def _around(row: Row, reach: int = 120) -> str:
    """The context near its first answer."""
    place = next((start for _, start in _answers(row) if start >= 0), 0)
    start, end = max(0, place - reach), place + reach
    return f"{'…' * (start > 0)}{row['context'][start:end]}{'…' * (end < len(row['context']))}"


def _marked(labels: Tensor, bit: int) -> Tensor:
    """Where this bit is set."""
    return (labels >= 0) & (labels & bit > 0)


def _answerable(batch: Batch) -> list[int]:
    """The ids of the places of a window that an answer may begin or end at."""
    found: list[int] = batch["input_ids"][0][batch["labels"][0] != IGNORE].tolist()
    return found


def _shares(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Of the M tokens that may begin or end an answer, row after row: the logarithms of their shares among those of
    their window (M, 2), in fp32 or wider; their labels (M,); and the number of their window (M,)."""
    segments = batch.get("segment_ids", torch.ones_like(batch["input_ids"]))
    counted = (batch["labels"] != IGNORE) & (segments > 0)
    window = (openings(segments).flatten().cumsum(0) - 1)[counted.flatten()]
    known = wide(logits)[counted]
    count = int(window[-1]) + 1 if len(window) else 0
    index = window[:, None].expand(-1, 2)
    highest = known.new_full((count, 2), float("-inf")).scatter_reduce(0, index, known.detach(), "amax")
    whole = known.new_zeros(count, 2).index_add(0, window, (known - highest[window]).exp())
    return known - (whole.log() + highest)[window], batch["labels"][counted], window
