"""Learn which of several candidates is right: the end of a story, the answer to a question, the cause of an event."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu import models
from danlu.data import shapes
from danlu.data.shapes import choice
from danlu.metrics import classification
from danlu.metrics.bag import overlap
from danlu.metrics.bootstrap import Sample
from danlu.modalities.text import Text
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, wide
from danlu.nn.masks import firsts
from danlu.tasks.task import Answer, Batch, Example, Row, Task, place_of, weighed


class MultipleChoice(Task):
    """One score per candidate, softmax over those of a question: input_ids (B, T), logits (N, 1) of N candidates.

    The candidates of a question are parts of one row, each behind the question and blind to the others; labels (B, T)
    hold at the first token of each 1 where it is right, 0 where not, and -100 elsewhere.
    """

    inputs = {"text": Text, "choices": Text}
    outputs = {"label": Text}
    shape = "choice"
    arch = "bert"
    long = "cut"
    judges = True
    selects = "accuracy"
    optional = ("text",)

    def encode(self, row: Row) -> Example:
        row = row if isinstance(row["choices"], list) else choice.loaded(row)
        ids, kinds, parts, labels = list[int](), list[int](), list[int](), list[int]()
        right = int(row["label"]) if row.get("label") is not None else None
        for place, each in enumerate(row["choices"]):
            asked = (row.get("text"), each) if row.get("text") else (each, None)
            own, kind = self.processor.joined(*asked, limit=self.context)
            ids, kinds, parts = ids + own, kinds + kind, parts + [place] * len(own)
            labels += [IGNORE if right is None else int(place == right)] + [IGNORE] * (len(own) - 1)
        return {"input_ids": ids, "type_ids": kinds, "parts": parts, "labels": labels}

    @property
    def choices(self) -> tuple[str, float]:
        return "2", 2

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, 1, answer="choice")

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (batch["labels"] == 1).sum()}

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        scores, right = self._questions(net, batch)  # in float64, so that the gradients of candidates cancel
        return {"loss": F.cross_entropy(scores.double(), right, ignore_index=IGNORE, reduction="sum")}

    def _questions(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores (Q, K) of the candidates of each question, -inf where one has fewer, and which is right (Q,)."""
        found, places, right = wide(net(batch))[:, 0], firsts(batch["parts"], batch), firsts(batch["labels"], batch)
        question = (places == 0).cumsum(0) - 1
        shape = int(question[-1]) + 1 if len(question) else 0, int(places.max()) + 1 if len(question) else 1
        scores = found.new_full(shape, -torch.inf).index_put((question, places), found)
        truth = torch.full_like(question[: shape[0]], IGNORE).index_put((question[right == 1],), places[right == 1])
        return scores, truth

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        scores, right = self._questions(net, batch)
        known = right != IGNORE
        scores, right = scores[known], right[known]
        hits = (scores.argmax(1) == right).sum() if len(right) else torch.tensor(0)
        return {
            "loss": F.cross_entropy(scores.double(), right, reduction="sum"),
            "questions": torch.stack([hits.double(), torch.tensor(float(len(right)), device=hits.device)]),
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        hits, total = sums["questions"].tolist()
        return {"loss": sums["loss"] / max(total, 1), "accuracy": hits / max(total, 1)}

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """The place of the likeliest candidate of each question, from 0, and the share of each."""
        with torch.no_grad():
            scores, _ = self._questions(net, batch)
        answers = []
        for row in scores:
            shares = row[row > -torch.inf].softmax(0).tolist()
            best = int(np.argmax(shares))
            answers.append({"label": str(best), "score": shares[best], "shares": shares})
        return answers

    def answer(self, net: nn.Module, batch: Batch, wanted: str = "") -> Answer:
        """The score of a candidate, which is named by its place."""
        with torch.no_grad():
            scores = self._questions(net, batch)[0][0]
        names = [str(place) for place in range(len(scores))]
        place = place_of(wanted, names, int(scores.argmax()))
        return Answer(names[place], lambda seen: weighed(self._questions(net, seen)[0], place))

    def joined(self, row: Row, found: Sequence[Row]) -> Row:
        """The answer, with the candidate in words."""
        row = row if isinstance(row["choices"], list) else choice.loaded(row)
        return {**found[0], "choice": row["choices"][int(found[0]["label"])]}

    # --- whole predictions ---

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        hits = np.array([self.right(*pair) for pair in zip(predictions, references, strict=True)], np.int64)
        sure = np.array([row["score"] for row in predictions])
        return classification.hits(hits, sure)

    def right(self, prediction: Row, reference: Row) -> bool:
        return str(prediction["label"]) == str(reference["label"])

    def told(self, answer: Row) -> str:
        if "choice" in answer:
            return f"{answer['choice']} ({answer['score']:.0%})"
        return str(answer["choices"][int(answer["label"])]) if "choices" in answer else str(answer["label"])

    def error(self, prediction: Row, reference: Row) -> Row | None:
        if self.right(prediction, reference):
            return None
        found = {"wanted": self.told(reference), "found": self.told(prediction), "weight": prediction["score"]}
        return {"given": shapes.plain(reference), **found}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """The candidate that shares the most tokens with the question."""
        answers = []
        for row in held_out:
            asked = self.processor.encode(row["text"])
            shared = [overlap(asked, self.processor.encode(each)) for each in row["choices"]]
            best = int(np.argmax(shared))
            answers.append({"label": str(best), "score": 1 / len(shared), "choice": row["choices"][best]})
        return {"overlap": answers}
