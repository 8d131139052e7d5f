"""What tasks share whose answer to a row is one label.

Shapes: B rows of a batch · T places · N rows of the data, several in one of the batch · C labels
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu import models
from danlu.data import shapes
from danlu.metrics import classification
from danlu.metrics.bootstrap import Sample
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, wide
from danlu.nn.masks import firsts
from danlu.tasks.task import Answer, Batch, Row, Task, place_of, weighed


class OneLabel(Task):
    """The answer is one of the labels, and how sure the model is of it: {"label", "score", "scores"}.

    labels (B, T) hold the number of the label at the first place of each row, and -100 elsewhere; logits (N, C).
    """

    judges = True
    selects = "accuracy"

    def target(self, row: Row, places: int) -> list[int]:
        """The column `labels` of a row that takes so many places."""
        label = self.labels.index(row["label"]) if row.get("label") is not None else IGNORE
        return [label] + [IGNORE] * (places - 1)

    @property
    def choices(self) -> tuple[str, int]:
        return "C", len(self.labels)

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, len(self.labels))

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (batch["labels"] != IGNORE).sum()}

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        logits, labels = self._answers(net, batch)
        return {"loss": F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")}

    def _answers(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, C) in fp32 or wider and labels (N,)."""
        return wide(net(batch)), firsts(batch["labels"], batch)

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self._answers(net, batch)
        known = labels != IGNORE
        return self.sums(logits[known], labels[known])

    def sums(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What is added over batches, of logits (N, C) and true labels (N,)."""
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

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """The label of each row, how sure the model is, and the score of every label."""
        with torch.no_grad():
            shares = wide(net(batch)).softmax(-1)
        return [self.likeliest(row) for row in shares.tolist()]

    def answer(self, net: nn.Module, batch: Batch, wanted: str = "") -> Answer:
        """The logit of a label."""
        with torch.no_grad():
            place = place_of(wanted, self.labels, int(net(batch)[0].argmax()))
        return Answer(self.labels[place], lambda seen: weighed(wide(net(seen)), place))

    def likeliest(self, shares: Sequence[float]) -> Row:
        """The likeliest label."""
        scores = dict(zip(self.labels, shares, strict=True))
        label = max(scores, key=scores.__getitem__)
        return {"label": label, "score": scores[label], "scores": scores}

    # --- whole predictions ---

    def _numbers(self, rows: Sequence[Row]) -> np.ndarray:
        known = {label: number for number, label in enumerate(self.labels)}
        return np.array([known[row["label"]] for row in rows], np.int64)

    def _confused(self, predictions: Sequence[Row], references: Sequence[Row]) -> np.ndarray:
        truth, found = (torch.from_numpy(self._numbers(rows)) for rows in (references, predictions))
        matrix: np.ndarray = classification.confusion(truth, found, len(self.labels)).numpy()
        return matrix

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        sure = np.array([row["score"] for row in predictions])
        return classification.sample(self._numbers(references), self._numbers(predictions), sure, len(self.labels))

    def each(self, predictions: Sequence[Row], references: Sequence[Row]) -> list[Row]:
        return classification.table(self._confused(predictions, references), self.labels)

    def confusion(self, predictions: Sequence[Row], references: Sequence[Row]) -> Row:
        return {"labels": list(self.labels), "matrix": self._confused(predictions, references).astype(int).tolist()}

    def right(self, prediction: Row, reference: Row) -> bool:
        return bool(prediction["label"] == reference["label"])

    def told(self, answer: Row) -> str:
        return f"{answer['label']} ({answer['score']:.0%})" if "score" in answer else str(answer["label"])

    def error(self, prediction: Row, reference: Row) -> Row | None:
        if self.right(prediction, reference):
            return None
        found = {"wanted": reference["label"], "found": prediction["label"], "weight": prediction["score"]}
        return {"given": shapes.plain(reference), **found}
