"""Learn to which class a picture belongs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.data import growing
from danlu.data.augment import Augmentation, Lots, mixed
from danlu.errors import UserError
from danlu.modalities.text import Text
from danlu.models.architecture import Architecture
from danlu.nn.losses import IGNORE, wide
from danlu.nn.masks import firsts
from danlu.tasks.answers.label import OneLabel
from danlu.tasks.answers.seen import Seen
from danlu.tasks.answers.teacher import Teacher
from danlu.tasks.task import Answer, Batch, Example, Row

_FIVE = 5


class ImageClassification(OneLabel, Seen):
    """One class for each picture: pixel_values uint8 (B, C, S, S), a place (B, 1) for each; logits (B, classes)."""

    outputs = {"label": Text}
    shape = "picture"
    arch = "cnn"
    archs = ("cnn", "mlp", "resnet", "vit", "ijepa")
    labelled = True
    step_tokens = 128
    stock = ("ForImageClassification",)
    known_as = ("image-classification",)
    teachable = True
    teacher: Teacher | None = None  # whose answers are learned beside the labels
    unit = growing.UNIT  # of the sides of pictures that grow
    options = {
        **Seen.options,
        "colour": (0.0, [0.0, 1.0], "by how much brightness, contrast and saturation change at most in training"),
        "randaugment": (0, [0, 8], "operations of RandAugment done to each picture in training"),
        "magnitude": (9, [0, 30], "how strong the operations of RandAugment are"),
        "erase": (0.0, [0.0, 1.0], "share of the pictures that lose a rectangle in training"),
        "mixup": (0.0, [0.0, 1.0], "share of the pictures that are added to another in training"),
        "cutmix": (0.0, [0.0, 1.0], "share of the pictures that get a rectangle of another in training"),
        "grow": (
            1.0,
            [0.25, 1.0],
            "share of its side that a picture has when training begins; it grows in three stages",
        ),
    }

    def shaped(self, architecture: Architecture) -> Architecture:
        """With a head for the classes.

        Raises:
            UserError: E284, pictures are to grow, and it does not see smaller ones, or none are smaller.
        """
        self.unit = getattr(architecture.embed, "patch", self.unit)
        first, whole = self._side(0.0, self.processor.size), self.processor.size
        if self.chosen["grow"] < 1 and (first == whole or not architecture.sees(first)):
            raise UserError("E284", share=self.chosen["grow"], first=first, whole=whole)
        return super().shaped(architecture)

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """The logit of a class."""
        return super().answer(lambda seen: net(self.processor.scaled(seen)), batch, wanted)  # type: ignore[arg-type]

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Pictures as they are seen in one epoch: a function of the epoch and the picture, but for what is mixed in.

        That is the next of the micro-batch: then `mates` (B, 1) is its label, and `own` (N,) the share of the first.
        `said` (N, 1, C) is what a teacher says of them.
        """
        seen = self._anew(batch)
        return seen | {"said": self.teacher.says(seen["pixel_values"])[:, None]} if self.teacher else seen

    def _anew(self, batch: Batch) -> Batch:
        if "lots" not in batch:
            return batch
        given = {name: self.chosen[name] for name in ("crop", "flip", "colour", "randaugment", "magnitude", "erase")}
        lots, seen = Lots(batch["lots"]), {name: each for name, each in batch.items() if name != "lots"}
        seen["pixel_values"] = Augmentation(**given)(batch["pixel_values"], lots)
        mixup, cutmix = self.chosen["mixup"], self.chosen["cutmix"]
        if not mixup + cutmix:
            return seen
        seen["pixel_values"], seen["own"] = mixed(seen["pixel_values"], mixup, cutmix, lots)
        known = batch["labels"] != IGNORE
        seen["mates"] = batch["labels"].masked_scatter(known, batch["labels"][known].roll(-1))
        return seen

    def staged(self, batch: Batch, progress: float) -> Batch:
        """Pictures as small as they are at this point."""
        pixels = batch["pixel_values"]
        return batch | {"pixel_values": growing.shrunk(pixels, self._side(progress, pixels.shape[-1]))}

    def share(self, progress: float) -> float:
        """Operations follow the pixels."""
        whole = self.processor.size
        return float((self._side(progress, whole) / whole) ** 2)

    @property
    def given(self) -> float:
        """Of a step's time, what does not follow the pixels; a teacher sees them whole."""
        return 0.6 if self.teacher else super().given

    def _side(self, progress: float, whole: int) -> int:
        return growing.side(whole, self.chosen["grow"], progress, self.unit)

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        """Cross-entropy with the label, or in shares with that of a second picture in it, and a teacher's answers."""
        logits, labels = self._answers(net, batch)
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        if "own" in batch:
            other = F.cross_entropy(logits, firsts(batch["mates"], batch), ignore_index=IGNORE, reduction="none")
            losses = batch["own"] * losses + (1 - batch["own"]) * other
        if "said" in batch and self.teacher:
            losses = self.teacher.mixed(losses, logits, batch["said"][:, 0])
        return {"loss": losses[labels != IGNORE].sum()}

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

    def error(self, prediction: Row, reference: Row) -> Row | None:
        found = super().error(prediction, reference)
        return found and found | {"image": reference["image"]}

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        told = super().report(sums)
        count = max(float(sums["confusion"].sum()), 1.0)
        return told | ({"top_5": float(sums["top_5"]) / count} if "top_5" in sums else {})
