"""Learn to which class a picture belongs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from danlu.modalities.image import Image
from danlu.modalities.text import Text
from danlu.nn.losses import IGNORE, wide
from danlu.nn.masks import firsts
from danlu.tasks.answers.label import OneLabel
from danlu.tasks.task import Batch, Example, Row, Task

_FIVE = 5


class ImageClassification(OneLabel):
    """One class for each picture: pixel_values uint8 (B, C, S, S), a place (B, 1) for each; logits (B, classes)."""

    inputs = {"image": Image}
    outputs = {"label": Text}
    shape = "picture"
    arch = "cnn"
    archs = ("cnn", "mlp")
    long = "drop"
    judges = True
    labelled = True
    step_tokens = 128
    stock = ("ForImageClassification",)
    known_as = ("image-classification",)
    options = {"size": (0, [0, 1024], "pixels on each side; 0: as the pictures are, at most 96")}

    answer = Task.answer  # which pixels it rests on is not told

    @classmethod
    def read_by(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"size": options.get("size", 0)}

    def encode(self, row: Row) -> Example:
        return {"input_ids": [0], "pixel_values": self.processor.encode(row["image"]), "labels": self.target(row, 1)}

    def _answers(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return wide(net(self.processor.scaled(batch))), firsts(batch["labels"], batch)

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        with torch.no_grad():
            shares = wide(net(self.processor.scaled(batch))).softmax(-1)
        return [self.likeliest(row) for row in shares.tolist()]

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Those of one label; and of how many the true class is among the likeliest five, where there are more."""
        logits, labels = self._answers(net, batch)
        known = labels != IGNORE
        sums = self.sums(logits[known], labels[known])
        if len(self.labels) > _FIVE:
            likeliest = logits[known].topk(_FIVE, -1).indices
            sums["top_5"] = (likeliest == labels[known][:, None]).sum()
        return sums

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        told = super().report(sums)
        count = max(float(sums["confusion"].sum()), 1.0)
        return told | ({"top_5": float(sums["top_5"]) / count} if "top_5" in sums else {})
