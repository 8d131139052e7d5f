"""Learn where in a picture things are, and what: a box around each.

Shapes: N pictures · P places that answer · M boxes that columns have room for · C classes · S pixels on each side as
they are encoded; a box is left, top, right, bottom in pixels
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu import models, pixels
from danlu.data import shapes
from danlu.data.augment import Augmentation, Lots
from danlu.metrics import detection
from danlu.modalities.image import Image
from danlu.models.architecture import Architecture
from danlu.nn.boxes import SIDES, apart, assigned, boxes_of, focal, kept, places_of
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import wide
from danlu.tasks.task import Batch, Example, Row, Task

_PRIOR = 4.6  # taken from each logit: at first a place holds a thing once in a hundred (1708.02002, section 4.1)
_LEAST = 0.05  # how sure a box must be to be measured


class ObjectDetection(Task):
    """Boxes around things: pixel_values uint8 (N, C, S, S), boxes fp32 (N, M, 5), the fifth the class, -1 of no box.

    The answer to a picture: {"boxes": [{"label", "score", "box": [left, top, right, bottom]}]}, the surest first, in
    pixels of the picture as it came.
    """

    inputs = {"image": Image}
    outputs = {"boxes": Image}
    shape = "boxed"
    arch = "fcos"
    archs = ("fcos",)
    long = "drop"
    judges = True
    selects = "map_50"
    labelled = True
    lone = ""
    step_tokens = 8
    known_as = ("object-detection",)
    encoded_by = ("size", "most")
    options = {
        "size": (0, [0, 1024], "pixels on each side; 0: as the pictures are, at most 96"),
        "most": (64, [1, 500], "boxes of a picture that are learned from, at most: the largest"),
        "crop": (0, [0, 512], "pixels by which pictures are moved at most in training, each time others"),
        "flip": (False, None, "turn left and right in training, half of the time"),
        "zoom": (0.0, [0.0, 1.0], "by what share pictures become larger or smaller at most in training"),
        "colour": (0.0, [0.0, 1.0], "by how much brightness, contrast and saturation change at most in training"),
        "threshold": (0.3, [0.05, 1.0], "how sure the model must be of a box to say it"),
        "overlap": (0.5, [0.0, 1.0], "by how much two boxes of a class overlap at most: of more the surer one stays"),
    }

    @classmethod
    def read_by(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"size": options.get("size", 0)}

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        """The class of each of its boxes."""
        return [str(each[-1]) for each in json.loads(row["boxes"])]

    @property
    def choices(self) -> tuple[str, float]:
        return "C", len(self.labels)

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, len(self.labels) + SIDES, each=True, answer="boxes")

    # --- rows to columns ---

    def encode(self, row: Row) -> Example:
        made = {"input_ids": [0], "pixel_values": self.processor.encode(row["image"])}
        return made if row.get("boxes") is None else made | {"boxes": self._scaled(row)}

    def _scaled(self, row: Row) -> np.ndarray:
        """The largest boxes of a row at the size of its encoded picture (M, 5)."""
        most, size = self.chosen["most"], self.processor.size
        sides = np.tile(np.array(self.processor.opened(row["image"]).size, float), 2)
        given = [
            (*np.array(each[:SIDES]) / sides * size, self.labels.index(each[-1])) for each in json.loads(row["boxes"])
        ]
        given.sort(key=lambda each: (each[0] - each[2]) * (each[3] - each[1]))
        self.noticed["boxes"] += max(0, len(given) - most)
        made = np.full((most, SIDES + 1), -1, np.float32)
        made[: len(given)] = np.array(given[:most], np.float32).reshape(-1, SIDES + 1)
        return made

    def asking(self, row: Row) -> list[Example]:
        """With the size of the picture, in whose pixels its boxes are to be."""
        width, height = self.processor.opened(row["image"]).size
        return [self.encode({"image": row["image"]}) | {"extent": np.array([height, width])}]

    # --- learning ---

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Pictures as they are seen in one epoch, and their boxes moved along."""
        if "lots" not in batch:
            return batch
        lots, seen = Lots(batch["lots"]), {name: each for name, each in batch.items() if name != "lots"}
        anew = Augmentation(**{name: self.chosen[name] for name in ("crop", "flip", "zoom", "colour")})
        moves = anew.moves(lots)
        seen["pixel_values"] = anew.coloured(moves(batch["pixel_values"]), lots)
        seen["boxes"] = moves.of_boxes(batch["boxes"], self.processor.size)
        return seen

    def _assigned(self, batch: Batch, side: int) -> tuple[Tensor, Tensor]:
        """The class of the box that each place answers for (N, P), -1 of none, and that box (N, P, 4)."""
        return assigned(batch["boxes"], places_of(side, self.processor.size, batch["boxes"].device))

    @property
    def _side(self) -> int:
        """Places on each side that answer: those of the network, known from the size of its pictures alone."""
        return models.preset(self.arch, 0, 1, 1, image=self.processor.size).embed.finest  # type: ignore[union-attr]

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Places that answer for a box."""
        held = (self._assigned(batch, self._side)[0] >= 0).sum()
        return {"loss": held, "place": held}

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        """Focal loss of classes (1708.02002), and of boxes 1 - their generalised overlap (1902.09630)."""
        logits, found = self._answers(net, batch)
        kinds, boxes = self._assigned(batch, isqrt(logits.shape[1]))
        held = kinds >= 0
        return {"loss": focal(logits, kinds), "place": apart(found[held], boxes[held].to(found.dtype)).sum()}

    def _answers(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, P, C) and boxes (N, P, 4), in fp32 or wider."""
        said = wide(net(self.processor.scaled(batch)))
        side, size = isqrt(said.shape[1]), self.processor.size
        return said[..., SIDES:] - _PRIOR, boxes_of(said[..., :SIDES], places_of(side, size, said.device), size / side)

    # --- answers ---

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Losses and their count; for each class, boxes that are right and all boxes by how sure they are."""
        losses, held = self.loss(net, batch), self.counts(batch)["loss"]
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
            logits, boxes = self._answers(net, batch)
        shares = zip(logits.sigmoid().cpu().numpy(), boxes.clamp(0, size).cpu().numpy(), strict=True)
        return [kept(scores, where, _LEAST, self.chosen["overlap"], detection.MOST) for scores, where in shares]

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        size = self.processor.size
        usual = [[size, size]] * len(batch["pixel_values"])
        extents = batch["extent"].tolist() if "extent" in batch else usual
        found = self._boxes(net, batch, size)
        return [self._said(each, extent) for each, extent in zip(found, extents, strict=True)]

    def _said(self, found: np.ndarray, extent: Sequence[int]) -> Row:
        """Boxes (D, 6) as an answer, in pixels of a picture of this height and width."""
        height, width = extent
        corners = found[:, :SIDES] * np.array([width, height] * 2) / self.processor.size
        told = zip(corners.round(2).tolist(), found[:, SIDES].tolist(), found[:, -1].astype(int).tolist(), strict=True)
        return {"boxes": [{"label": self.labels[kind], "score": score, "box": box} for box, score, kind in told]}

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

    def score(self, predictions: Sequence[Row], references: Sequence[Row]) -> dict[str, float]:
        return detection.summary(self._tallies(predictions, references))

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
