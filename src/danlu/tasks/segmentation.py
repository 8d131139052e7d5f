"""Learn which class each pixel of a picture belongs to.

Shapes: N pictures · C classes · S pixels on each side as they are encoded · H, W pixels of a picture as it came
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from math import isqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu import models, pixels
from danlu.data import shapes
from danlu.data.augment import Moves
from danlu.metrics import classification, segmentation
from danlu.metrics.bootstrap import Sample
from danlu.modalities.image import Image
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import wide
from danlu.tasks.answers.place import Placed
from danlu.tasks.task import Batch, Example, Row

VOID = 255  # in columns: a pixel of no class
_SHOWN = 3  # classes of a picture that are told


class Segmentation(Placed):
    """One class for each pixel: pixel_values uint8 (N, C, S, S), pixel_labels uint8 (N, S, S), 255 of no class.

    The answer to a picture is a mask of its own size: a PNG file in base64, whose pixels hold the numbers of the
    classes as the masks to learn from do, and a palette for people: {"mask", "classes": share of each class, "legend":
    [{"number", "name", "colour"}]}.
    """

    outputs = {"mask": Image}
    shape = "masked"
    arch = "unet"
    archs = ("unet",)
    selects = "mean_iou"
    known_as = ("image-segmentation",)
    options = {
        **Placed.options,
        "dice": (0.0, [0.0, 10.0], "weight of the overlap that classes lack in a picture, beside the loss of pixels"),
        "balance": (0.0, [0.0, 1.0], "how far a picture's rare classes weigh as much as its common ones"),
    }

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        """The numbers that its mask holds, but for those of no class."""
        found = np.unique(pixels.classes(pixels.read(row["mask"])))
        return [str(number) for number in found.tolist() if number != int(row["void"])]

    @classmethod
    def names_of(cls, row: Row) -> dict[str, str]:
        found: dict[str, str] = json.loads(row.get("names") or "{}")
        return found

    @cached_property
    def _names(self) -> list[str]:
        """What each class is called: its number, where nobody says."""
        told = self.chosen.get("names", {})
        return [told.get(label, label) for label in self.labels]

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, len(self.labels), each=True)

    # --- rows to columns ---

    def encode(self, row: Row) -> Example:
        made = {"input_ids": [0], "pixel_values": self.processor.encode(row["image"])}
        if row.get("mask") is None:
            return made
        size = self.processor.size
        return made | {"pixel_labels": pixels.resized(self._places(row), size, size)}

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The number that stands in masks for each class (C,)."""
        return np.array([int(label) for label in self.labels], np.uint8)

    def _places(self, row: Row) -> np.ndarray:
        """The mask of a row, as places of its classes among the labels uint8 (H, W)."""
        table = np.full(256, VOID, np.uint8)
        table[self._numbers] = np.arange(len(self.labels), dtype=np.uint8)
        if row.get("void"):
            table[int(row["void"])] = VOID
        return table[pixels.classes(pixels.read(row["mask"]))]

    # --- learning ---

    def moved(self, moves: Moves, batch: Batch) -> Batch:
        return {"pixel_labels": moves.of_masks(batch["pixel_labels"], VOID)}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Pixels of a class; and pictures that have such, where overlaps are learned."""
        known = batch["pixel_labels"] != VOID
        pictures = {"dice": known.flatten(1).any(1).sum()} if self.chosen["dice"] else {}
        return {"loss": known.sum()} | pictures

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        """Cross-entropy of pixels; beside it 1 - Dice (1606.04797), the mean over the classes of each picture."""
        logits, labels = self._answers(net, batch)
        losses = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none")
        if self.chosen["balance"]:
            losses = losses * _weights(labels, len(self.labels), self.chosen["balance"]).to(losses.dtype)
        found = {"loss": losses.sum()}
        if self.chosen["dice"]:
            found["dice"] = self.chosen["dice"] * _apart(logits.softmax(1), labels)
        return found

    def _answers(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, C, S, S) in fp32 or wider and labels (N, S, S); each place answers for the pixels under it."""
        labels = batch["pixel_labels"].long()
        return F.interpolate(self._logits(net, batch), size=labels.shape[-2:], mode="nearest"), labels

    def _logits(self, net: nn.Module, batch: Batch) -> Tensor:
        """(N, C, places, places), as fine as the network answers."""
        found = wide(net(self.processor.scaled(batch)))
        side = isqrt(found.shape[1])
        return found.transpose(1, 2).unflatten(2, (side, side))

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self._answers(net, batch)
        known = labels != VOID
        losses = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none")
        matrix = classification.confusion(labels[known], logits.argmax(1)[known], len(self.labels))
        return {"loss": losses.double().sum(), "confusion": matrix}

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        matrix = sums["confusion"].numpy()
        found = {name: float(each) for name, each in segmentation.summary(matrix).items()}
        return {"loss": float(sums["loss"]) / max(matrix.sum(), 1), **found}

    # --- answers ---

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        with torch.no_grad():
            logits = self._logits(net, batch)
            fine = (F.interpolate(one[None], size=extent, mode="bilinear", align_corners=False)
                    for one, extent in zip(logits, self.extents(batch), strict=True))  # fmt: skip
            return [self._said(each[0].argmax(0).cpu().numpy().astype(np.uint8)) for each in fine]

    def _said(self, places: np.ndarray) -> Row:
        """The answer that places of classes among the labels (H, W) are."""
        shares = np.bincount(places.reshape(-1), minlength=len(self.labels)) / places.size
        mask = pixels.written(pixels.coloured(self._numbers[places]))
        return {"mask": mask, "classes": dict(zip(self._names, shares.tolist(), strict=True))}

    def alone(self, answer: Row) -> Row:
        """With a legend: the number, name and colour of each class that is somewhere."""
        legend = [
            {"number": number, "name": name, "colour": pixels.colour(number)} for number, name in self._key(answer)
        ]
        return answer | {"legend": legend}

    def _key(self, answer: Row) -> list[tuple[int, str]]:
        """Number and name of each class that is somewhere in an answer."""
        known = zip(self._numbers.tolist(), self._names, strict=True)
        return [(number, name) for number, name in known if answer["classes"][name]]

    def drawn(self, answer: Row, row: Row) -> dict[str, bytes]:
        """The mask, and the picture under its colours with a legend."""
        mask = pixels.read(answer["mask"])
        return {"mask": mask, "drawn": pixels.keyed(self.processor.opened(row["image"]), mask, self._key(answer))}

    def told(self, answer: Row) -> str:
        places = self._places(answer)
        counts = np.bincount(places[places != VOID], minlength=len(self.labels))
        most = [place for place in np.argsort(-counts, kind="stable")[:_SHOWN] if counts[place]]
        return ", ".join(f"{self._names[place]}: {counts[place] / counts.sum():.0%}" for place in most)

    # --- whole predictions ---

    def _matrices(self, predictions: Sequence[Row], references: Sequence[Row]) -> np.ndarray:
        """(N, C, C), each at the size of its picture."""
        pairs = zip(predictions, references, strict=True)
        return np.stack([self._matrix(said, row) for said, row in pairs])

    def _matrix(self, said: Row, row: Row) -> np.ndarray:
        return segmentation.counted(self._places(row), self._places(said), len(self.labels), VOID)

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample:
        return segmentation.sample(self._matrices(predictions, references))

    def each(self, predictions: Sequence[Row], references: Sequence[Row]) -> list[Row]:
        """Of each class its pixels; its F1 is Dice."""
        return classification.table(self._matrices(predictions, references).sum(0), self._names)

    def error(self, prediction: Row, reference: Row) -> Row | None:
        matrix = self._matrix(prediction, reference)
        wrong = 1 - float(np.trace(matrix)) / max(float(matrix.sum()), 1.0)
        told = {"wanted": self.told(reference), "found": self.told(prediction), "weight": wrong}
        return {"given": shapes.plain(reference), **told} if wrong else None

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Of each pixel the class that is most frequent at its place, whatever the picture."""
        size, numbers = self.processor.size, np.arange(len(self.labels))
        counts = np.zeros((size, size, len(numbers)), np.int32)
        for row in train:
            counts += pixels.resized(self._places(row), size, size)[..., None] == numbers
        usual = counts.argmax(-1).astype(np.uint8)
        extents = (self._places(row).shape for row in held_out)
        return {"usual": [self._said(pixels.resized(usual, *extent)) for extent in extents]}


def _weights(labels: Tensor, classes: int, balance: float) -> Tensor:
    """Weights (N, S, S) of pixels, n^-balance where n of their picture are of their class; in each they sum to its own.

    1.0: all classes of a picture weigh the same (frequency balancing, 1411.4734, within each picture).
    """
    known = labels != VOID
    ones = F.one_hot(labels.where(known, classes), classes + 1)[..., :classes]
    each = ones.sum((1, 2)).double()
    own = each.clamp(min=1).pow(-balance)
    own = own * (each.sum(1) / (own * each).sum(1).clamp(min=1e-9))[:, None]
    return F.pad(own, (0, 1)).gather(1, labels.where(known, classes).flatten(1)).view_as(labels)


def _apart(shares: Tensor, labels: Tensor) -> Tensor:
    """SUM over pictures of 1 - Dice, the mean over the classes that each has: shares (N, C, S, S), labels (N, S, S)."""
    known = (labels != VOID)[:, None]
    true = (F.one_hot(labels.where(labels != VOID, 0), shares.shape[1]).movedim(-1, 1) * known).to(shares.dtype)
    both, each = (shares * true).sum((2, 3)), (shares * known + true).sum((2, 3))
    there = true.sum((2, 3)) > 0
    lacking = torch.where(there, 1 - 2 * both / each.clamp(min=1e-6), 0.0)
    return (lacking.sum(1) / there.sum(1).clamp(min=1)).sum()
