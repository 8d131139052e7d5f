"""What tasks share whose answer to a row is one number.

Shapes: B rows of a batch · T places · N rows of the data, several in one of the batch
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu import models
from danlu.data import shapes
from danlu.metrics import regression
from danlu.metrics.bootstrap import Sample
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import wide
from danlu.nn.masks import firsts
from danlu.tasks.task import Answer, Batch, Row, Task, place_of


class OneNumber(Task):
    """The answer is a number: {"score"}. The network gives it standardised, by the mean and deviation of training rows.

    labels (B, T) float32 hold the standardised number at the first place of each row, and NaN elsewhere; logits (N, 1).
    """

    judges = True

    @classmethod
    def number_of(cls, row: Row) -> float | None:
        return float(row["score"])

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the numbers of the rows to train on."""
        mean, std = self.chosen.get("scale", (0.0, 1.0))
        return mean, std

    def target(self, row: Row, places: int) -> np.ndarray:
        """The column `labels` of a row that takes so many places."""
        found = np.full(places, np.nan, np.float32)
        if row.get("score") is not None:
            found[0] = (float(row["score"]) - self.scale[0]) / self.scale[1]
        return found

    @property
    def choices(self) -> tuple[str, float]:
        return "e", math.e  # who says the mean has a loss of 1, the logarithm of that

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, 1)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (~batch["labels"].isnan()).sum()}

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        found, wanted = self._known(net, batch)
        return {"loss": (found - wanted).square().sum()}

    def _known(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Standardised predictions and numbers of the rows that have one (N,), in fp32 or wider."""
        found, wanted = wide(net(batch))[:, 0], firsts(batch["labels"], batch)
        known = ~wanted.isnan()
        return found[known], wanted[known].to(found.dtype)

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x, y = (each.double().cpu() for each in self._known(net, batch))
        sums = {"n": torch.tensor(float(len(x))), "x": x.sum(), "y": y.sum(), "xx": x @ x, "yy": y @ y, "xy": x @ y}
        return {"loss": (x - y).square().sum(), **sums}

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        n = max(sums["n"], 1.0)
        pearson = regression.pearson(n, *(sums[name] for name in ("x", "y", "xx", "yy", "xy")))
        return {"loss": sums["loss"] / n, "rmse": math.sqrt(sums["loss"] / n) * self.scale[1], "pearson": pearson}

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """The number of each row."""
        with torch.no_grad():
            found = net(batch).double()[:, 0] * self.scale[1] + self.scale[0]
        return [{"score": number} for number in found.tolist()]

    def answer(self, net: nn.Module, batch: Batch, wanted: str = "") -> Answer:
        """The number itself."""
        place_of(wanted, ("score",), 0)

        def figures(seen: Batch) -> tuple[Tensor, Tensor]:
            found = wide(net(seen))[:, 0] * self.scale[1] + self.scale[0]
            return found, found

        return Answer("score", figures)

    # --- whole predictions ---

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        truth, found = (np.array([float(row["score"]) for row in rows]) for rows in (references, predictions))
        return regression.sample(truth, found)

    def told(self, answer: Row) -> str:
        return f"{float(answer['score']):.4g}"

    def error(self, prediction: Row, reference: Row) -> Row | None:
        apart = abs(float(prediction["score"]) - float(reference["score"]))
        found = {"wanted": self.told(reference), "found": self.told(prediction), "weight": apart}
        return {"given": shapes.plain(reference), **found}
