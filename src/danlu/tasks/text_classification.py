"""Learn to which class a text, or a pair of texts, belongs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu import models
from danlu.data.shapes import texts
from danlu.metrics import classification
from danlu.modalities.text import Text
from danlu.models.architecture import Architecture
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
    arch = "bert"
    long = "cut"
    labelled = True

    def encode(self, row: Row) -> Example:
        ids, kinds = self.processor.joined(*texts(row), limit=self.context)
        label = self.labels.index(row["label"]) if row["label"] is not None else IGNORE
        return {"input_ids": ids, "type_ids": kinds, "labels": [label] + [IGNORE] * (len(ids) - 1)}

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
        return {"loss": float(sums["loss"]) / max(matrix.sum(), 1), **classification.summary(matrix)}

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """The label of each text, how sure the model is, and the score of every label."""
        with torch.no_grad():
            shares = net(batch).float().softmax(-1)
        found = [dict(zip(self.labels, row, strict=True)) for row in shares.tolist()]
        best = [max(scores, key=scores.__getitem__) for scores in found]
        return [{"label": label, "score": row[label], "scores": row} for label, row in zip(best, found, strict=True)]
