"""Learn to which class a text, or a pair of texts, belongs."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from danlu import models
from danlu.data.shapes import texts
from danlu.metrics import classification
from danlu.metrics.bag import Bag
from danlu.modalities.text import Text
from danlu.models.architecture import Architecture
from danlu.nn import hiding
from danlu.nn.heads import HeadConfig
from danlu.nn.masks import openings
from danlu.tasks.task import Batch, Example, Row, Task

IGNORE = -100


class TextClassification(Task):
    """One class for each text: input_ids (B, T), labels (B, T) with the class at the first token of each text.

    A row of a batch holds several texts, told apart by segment_ids; logits (N, C), one row per text, in their order.
    """

    inputs = {"text": Text, "text_pair": Text}
    outputs = {"label": Text}
    shape = "labelled"
    known_as = ("sentiment-analysis",)
    stock = ("ForSequenceClassification",)
    arch = "bert"
    long = "cut"
    judges = True
    labelled = True
    optional = ("text_pair",)
    options = {"hide": (0.0, [0.0, 0.9], "share of the tokens that training hides, each time others")}

    def encode(self, row: Row) -> Example:
        ids, kinds = self.processor.joined(*texts(row), limit=self.context)
        label = self.labels.index(row["label"]) if row.get("label") is not None else IGNORE
        return {"input_ids": ids, "type_ids": kinds, "labels": [label] + [IGNORE] * (len(ids) - 1)}

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """With `hide`, the mask stands in the place of some tokens: few rows are not learned by heart (2009.13818)."""
        if not self.chosen["hide"]:
            return batch
        ids, special = batch["input_ids"], torch.tensor(sorted(self.processor.control.values()))
        free = (batch["segment_ids"] > 0) & ~torch.isin(ids, special)
        hidden = hiding.tokens(free, self.chosen["hide"], generator)
        return {**batch, "input_ids": torch.where(hidden, self.processor.mask_id, ids)}

    @property
    def choices(self) -> tuple[str, int]:
        return "C", len(self.labels)

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, len(self.labels))

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (batch["labels"] != IGNORE).sum()}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        logits, labels = self._answers(net, batch)
        return {"loss": F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")}

    def _answers(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, C) in fp32 or wider and labels (N,) of all texts of a batch."""
        logits = net(batch)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        segments = batch.get("segment_ids", torch.ones_like(batch["input_ids"]))
        return wide, batch["labels"][openings(segments)]

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self._answers(net, batch)
        known = labels != IGNORE
        logits, labels = logits[known], labels[known]
        return {
            "loss": F.cross_entropy(logits.double(), labels, reduction="sum"),
            "confusion": classification.confusion(labels, logits.argmax(-1), len(self.labels)),
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        matrix = sums["confusion"].numpy()
        return {"loss": float(sums["loss"]) / max(matrix.sum(), 1), **self.summary(matrix)}

    def summary(self, matrix: np.ndarray) -> dict[str, float]:
        """The metrics that a confusion matrix (C, C) gives."""
        return classification.summary(matrix)

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """The label of each text, how sure the model is, and the score of every label."""
        with torch.no_grad():
            shares = net(batch).float().softmax(-1)
        found = [dict(zip(self.labels, row, strict=True)) for row in shares.tolist()]
        best = [max(scores, key=scores.__getitem__) for scores in found]
        return [{"label": label, "score": row[label], "scores": row} for label, row in zip(best, found, strict=True)]

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row]) -> dict[str, dict[str, float]]:
        """Logistic regression on a bag of the training rows' 1-grams and 2-grams."""
        ids, labels = zip(
            *((np.array(each["input_ids"]), each["labels"][0]) for each in map(self.encode, train)), strict=True
        )
        rows = [np.array(self.encode(row)["input_ids"]) for row in held_out]
        bag = Bag(ids, np.array(labels), len(self.labels), self.processor.vocab_size)
        found = torch.from_numpy(bag.predict(rows))
        truth = torch.tensor([self.labels.index(row["label"]) for row in held_out])
        return {"bag": self.summary(classification.confusion(truth, found, len(self.labels)).numpy())}

    def each(self, predictions: Sequence[Row], references: Sequence[Row]) -> list[Row]:
        numbers = {label: number for number, label in enumerate(self.labels)}
        truth, found = (torch.tensor([numbers[row["label"]] for row in rows]) for rows in (references, predictions))
        return classification.table(classification.confusion(truth, found, len(numbers)).numpy(), self.labels)

    def error(self, prediction: Row, reference: Row) -> Row | None:
        if prediction["label"] == reference["label"]:
            return None
        given = "\n".join(text for text in texts(reference) if text)
        return {
            "given": given,
            "wanted": reference["label"],
            "found": prediction["label"],
            "weight": prediction["score"],
        }
