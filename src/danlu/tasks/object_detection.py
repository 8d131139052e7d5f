"""Learn where in a picture things are, and what: a box around each.

Shapes: N pictures · M boxes that columns have room for · C classes · S pixels on each side as
they are encoded; a box is left, top, right, bottom in pixels
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu import models, pixels
from danlu.data import shapes
from danlu.data.augment import Moves
from danlu.metrics import detection
from danlu.metrics.bootstrap import Sample
from danlu.modalities.image import Image
from danlu.models.architecture import Architecture
from danlu.nn.boxes import SIDES, kept
from danlu.nn.heads import HeadConfig
from danlu.nn.queries import QueriesConfig
from danlu.tasks.answers import boxes
from danlu.tasks.answers.place import Placed
from danlu.tasks.task import Batch, Example, Row

_LEAST = 0.05  # how sure a box must be to be measured


class ObjectDetection(Placed):
    """Boxes around things: pixel_values uint8 (N, C, S, S), boxes fp32 (N, M, 5), the fifth the class, -1 of no box.

    The answer to a picture: {"boxes": [{"label", "score", "box": [left, top, right, bottom]}]}, the surest first, in
    pixels of the picture as it came.
    """

    outputs = {"boxes": Image}
    shape = "boxed"
    arch = "fcos"
    archs = ("fcos", "detr")
    selects = "map_50"
    lone = ""
    known_as = ("object-detection",)
    encoded_by = ("size", "most")  # type: ignore[assignment]
    options = {
        **Placed.options,
        "most": (64, [1, 500], "boxes of a picture that are learned from, at most: the largest"),
        "threshold": (0.3, [0.05, 1.0], "how sure the model must be of a box to say it"),
        "overlap": (0.5, [0.0, 1.0], "by how much two boxes of a class overlap at most: of more the surer one stays"),
    }

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        """The class of each of its boxes."""
        return [str(each[-1]) for each in json.loads(row["boxes"])]

    def head(self, architecture: Architecture) -> HeadConfig:
        if isinstance(architecture.head, QueriesConfig):
            return replace(architecture.head, count=len(self.labels))
        return models.label_head(architecture, len(self.labels) + SIDES, each=True, answer="boxes")

    # --- rows to columns ---

    def encode(self, row: Row) -> Example:
        made = {"input_ids": [0], "pixel_values": self.processor.encode(row["image"])}
        return made if row.get("boxes") is None else made | {"boxes": self._scaled(row)}

    def _scaled(self, row: Row) -> np.ndarray:
        """The largest boxes of a row at the size of its encoded picture (M, 5)."""
        most, size = self.chosen["most"], self.processor.size
        sides = self._sides(row)
        given = [
            (*np.array(each[:SIDES]) / sides * size, self.labels.index(each[-1])) for each in json.loads(row["boxes"])
        ]
        given.sort(key=lambda each: (each[0] - each[2]) * (each[3] - each[1]))
        self.noticed["boxes"] += max(0, len(given) - most)
        made = np.full((most, SIDES + 1), -1, np.float32)
        made[: len(given)] = np.array(given[:most], np.float32).reshape(-1, SIDES + 1)
        return made

    def _sides(self, row: Row) -> np.ndarray:
        """Width, height, width, height of the picture of a row, as it came."""
        return np.tile(np.array(self.processor.opened(row["image"]).size, float), 2)

    # --- learning ---

    def moved(self, moves: Moves, batch: Batch) -> Batch:
        return {"boxes": moves.of_boxes(batch["boxes"], self.processor.size)}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Places that answer for a box, and boxes."""
        return boxes.held(batch["boxes"], self.processor.size)

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        """As the way has it in which the network says boxes."""
        return self._way(net).losses(net, self.processor.scaled(batch))

    def _way(self, net: nn.Module) -> boxes.Way:
        return boxes.way_of(net, self.processor.size)

    # --- answers ---

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Losses and their count; for each class, boxes that are right and all boxes by how sure they are."""
        losses, held = self.loss(net, batch), self._way(net).held(batch["boxes"])
        sums, size = np.zeros((3, len(self.labels), detection.BINS)), self.processor.size
        for said, true in zip(self._boxes(net, batch, size), batch["boxes"].cpu().numpy(), strict=True):
            detection.binned(sums, said, true[true[:, -1] >= 0])
        return {"loss": sum(losses.values()), "held": held, "boxes": torch.from_numpy(sums)}  # type: ignore[dict-item]

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        found = {"loss": float(sums["loss"]) / max(float(sums["held"]), 1.0)}
        return found | {"map_50": detection.of_bins(sums["boxes"].numpy())}

    def _boxes(self, net: nn.Module, batch: Batch, size: int) -> list[np.ndarray]:
        """The boxes of each picture (D, 6): corners, score, class; the surest first."""
        with torch.no_grad():
            sure, found = self._way(net).said(net, self.processor.scaled(batch))
        shares = zip(sure.cpu().numpy(), found.clamp(0, size).cpu().numpy(), strict=True)
        return [kept(scores, where, _LEAST, self.chosen["overlap"], detection.MOST) for scores, where in shares]

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        found = self._boxes(net, batch, self.processor.size)
        return [self._said(each, extent) for each, extent in zip(found, self.extents(batch), strict=True)]

    def _said(self, found: np.ndarray, extent: Sequence[int]) -> Row:
        """Boxes (D, 6) as an answer, in pixels of a picture of this height and width."""
        height, width = extent
        corners = found[:, :SIDES] * np.array([width, height] * 2) / self.processor.size
        told = zip(corners, found[:, SIDES].tolist(), found[:, -1].astype(int).tolist(), strict=True)
        return {"boxes": [_told(self.labels[kind], score, box) for box, score, kind in told]}

    def alone(self, answer: Row) -> Row:
        """The boxes that it is sure of."""
        return {"boxes": [each for each in answer["boxes"] if each["score"] >= self.chosen["threshold"]]}

    def drawn(self, answer: Row, row: Row) -> dict[str, bytes]:
        boxes = [(each["box"], each["label"]) for each in answer["boxes"]]
        return {"drawn": pixels.framed(self.processor.opened(row["image"]), boxes, self.labels)}

    def told(self, answer: Row) -> str:
        labels = self.labels_of(answer) if isinstance(answer["boxes"], str) else [
            each["label"] for each in self.alone(answer)["boxes"]]  # fmt: skip
        return ", ".join(f"{label} {count}" for label, count in sorted(Counter(labels).items())) or "-"

    # --- whole predictions ---

    def _tallies(self, predictions: Sequence[Row], references: Sequence[Row]) -> dict[str, detection.Tally]:
        tallies = {label: detection.Tally() for label in self.labels}
        for said, row in zip(predictions, references, strict=True):
            true = json.loads(row["boxes"])
            for label, tally in tallies.items():
                own = [each for each in said["boxes"] if each["label"] == label]
                corners = np.array([each["box"] for each in own], float).reshape(-1, SIDES)
                wanted = np.array([each[:SIDES] for each in true if each[-1] == label], float).reshape(-1, SIDES)
                tally.add(corners, np.array([each["score"] for each in own], float), wanted)
        return tallies

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample:
        sure = [self.alone(each) for each in predictions]
        return detection.sample(*(list(self._tallies(said, references).values()) for said in (predictions, sure)))

    def each(self, predictions: Sequence[Row], references: Sequence[Row]) -> list[Row]:
        """Of each class what is found at a half's overlap, by boxes that the model is sure of."""
        tallies = self._tallies([self.alone(each) for each in predictions], references)
        return [{"label": label, **tally.shares()} for label, tally in tallies.items()]

    def error(self, prediction: Row, reference: Row) -> Row | None:
        """How many boxes are missed or made up."""
        tallies = self._tallies([self.alone(prediction)], [reference]).values()
        wrong = sum(tally.missed + tally.false for tally in tallies)
        told = {"wanted": self.told(reference), "found": self.told(prediction), "weight": wrong}
        return {"given": shapes.plain(reference), **told} if wrong else None

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Of each class its mean box, in shares of the picture, as sure as pictures have one: whatever the picture."""
        found, pictures, count = defaultdict[str, list[np.ndarray]](list), Counter[str](), 0
        for row in train:
            count, sides = count + 1, self._sides(row)
            for each in json.loads(row["boxes"]):
                found[str(each[-1])].append(np.array(each[:SIDES]) / sides)
            pictures.update(set(self.labels_of(row)))
        usual = [(label, pictures[label] / count, np.mean(found[label], 0)) for label in self.labels if found[label]]
        usual.sort(key=lambda each: -each[1])
        said = [[(label, share, mean * self._sides(row)) for label, share, mean in usual] for row in held_out]
        return {"mean_boxes": [{"boxes": [_told(*each) for each in boxes]} for boxes in said]}


def _told(label: str, score: float, box: np.ndarray) -> Row:
    return {"label": label, "score": score, "box": box.round(2).tolist()}
