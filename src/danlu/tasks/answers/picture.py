"""What tasks share that learn to make new pictures.

Shapes: N pictures · C channels · S pixels on each side; networks see pixels from -1 to 1
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu import pixels
from danlu.data.augment import Lots
from danlu.errors import UserError
from danlu.modalities.image import Image
from danlu.randomness import generator
from danlu.tasks.task import Batch, Example, Row, Task

_HALF = 127.5  # of the range of pixels
_TOGETHER = 64  # pictures that are made at once
_NAMED = 20  # classes that an error names
_GAP = 2  # pixels between pictures of a grid


class NewPictures(Task):
    """Learns from pictures, with their classes or alone, and makes others: what is drawn for each is of its own lot.

    A row that asks is {"count", "seed"}, and "label" where classes are learned; the answer holds the pictures as one
    PNG in base64. pixel_values are uint8 (N, C, S, S) in columns, and from -1 to 1 once something was drawn for them;
    `classes` (N,) are then the numbers of their classes.
    """

    inputs = {"image": Image}
    outputs = {"image": Image}
    unsupervised = True
    shape = "picture"
    long = "drop"
    judges = True
    makes = True
    encoded_by = ("size", "classes")
    options = {
        "size": (0, [0, 1024], "pixels on each side; 0: as the pictures are, at most 96"),
        "classes": (False, None, "whether the class of a picture is learned with it, so that one can be asked for"),
    }
    judged = 0
    lone = "E283"

    @classmethod
    def learns_labels(cls, options: Mapping[str, Any]) -> bool:
        return bool(options.get("classes"))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that it knows; none where pictures are learned alone."""
        return self.labels if self.chosen["classes"] else ()

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """Of wishes that are numbers."""
        return {"count": (1, 256), "seed": (0, 2**53)}

    @property
    def wishes(self) -> dict[str, Any]:
        return {"count": 64, "seed": 1} | ({"label": ""} if self.classes else {})

    def encode(self, row: Row) -> Example:
        seen = {"input_ids": [0], "pixel_values": self.processor.encode(row["image"])}
        return seen | ({"labels": [self.labels.index(row["label"])]} if self.classes else {})

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """With what is drawn for each picture: a function of the epoch and the picture."""
        lots = batch.get("lots")
        if lots is None:
            lots = torch.randint(2**62, (len(batch["pixel_values"]),), generator=generator)
        return self._chanced(batch, lots)

    def posed(self, batch: Batch) -> Batch:
        """With what is drawn for each picture by its pixels: the same at every look, whoever stands beside it."""
        return self._chanced(batch, _lots_of(batch["pixel_values"]))

    def _chanced(self, batch: Batch, lots: Tensor) -> Batch:
        plain = {name: each for name, each in batch.items() if name != "lots"}
        plain["pixel_values"] = batch["pixel_values"].float() / _HALF - 1
        if self.classes:
            plain["classes"] = batch["labels"][: len(batch["pixel_values"]), 0]  # of no picture there is one place
        return self.chanced(plain, Lots(lots))

    @abstractmethod
    def chanced(self, batch: Batch, lots: Lots) -> Batch:
        """A batch with pixel_values from -1 to 1, and what is drawn for each of its pictures."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": torch.tensor(len(batch["pixel_values"]))}

    # --- pictures that it makes ---

    def asking(self, row: Row) -> list[Example]:
        """What is wished for, as numbers in the order of `wishes`; a class by its number, -1 for each in turn.

        Raises:
            UserError: E621, another wish, or one that cannot be.
        """
        asked = self.wishes | row
        for name, value in asked.items():
            if not self._can(name, value):
                raise UserError("E621", name=name, found=value, valid=", ".join(map(self._valid, self.wishes)))
        if "label" in asked:
            asked["label"] = -1 if asked["label"] == "" else self.classes.index(str(asked["label"]))
        wish = np.array([asked[name] for name in self.wishes], np.float64)
        return [{"input_ids": [0], "wish": wish.view(np.int64)}]  # not every device has numbers of 64 bits with a point

    def _can(self, name: str, value: Any) -> bool:
        """Whether a wish can be granted."""
        if name == "label" and self.classes:
            return str(value) in ("", *self.classes)  # classes may be called by numbers
        least, most = self.limits.get(name, (0, -1))
        types = (int, float) if isinstance(most, float) else (int,)
        return name in self.wishes and type(value) in types and least <= value <= most

    def _valid(self, name: str) -> str:
        if name == "label":
            named = ", ".join(self.classes[:_NAMED])
            return f"label ({named}, ...)" if len(self.classes) > _NAMED else f"label ({named})"
        return "{} ({:,} - {:,})".format(name, *self.limits[name])

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """{"image": a PNG of all pictures in rows and columns, in base64}, what was wished, and "labels" of each."""
        found = []
        for wish in batch["wish"].cpu().view(torch.float64).tolist():
            told = dict(zip(self.wishes, (int(each) if each.is_integer() else each for each in wish), strict=True))
            label, asked = told.pop("label", -1), dict(told)
            shown = self._shown(told["count"], label)
            image = pixels.written(sheet(self.pictures(net, told.pop("count"), told.pop("seed"), shown, **told)))
            found.append({"image": image, **asked})
            if shown:
                found[-1]["labels"] = [self.classes[each] for each in shown]
        return found

    def _shown(self, count: int, label: int) -> list[int]:
        """The number of the class of each picture: one for all, or each in turn; none where there are no classes."""
        turn = [place % len(self.classes) for place in range(count)] if self.classes else []
        return [label] * count if label >= 0 else turn

    def pictures(self, net: Any, count: int, seed: int, shown: Sequence[int] = (), **wish: float) -> np.ndarray:
        """uint8 (N, C, S, S); the k-th is a function of what is wished, of the class that it shows, the seed and k."""
        wish = {name: value for name, value in self.wishes.items() if name in self.limits} | wish
        made = []
        with torch.no_grad():
            for first in range(0, count, _TOGETHER):
                places = range(first, min(first + _TOGETHER, count))
                noise = [torch.randn(self.begins(net), generator=generator(seed, "sample", k)) for k in places]
                classes = torch.tensor([shown[k] for k in places], device=net.device) if shown else None
                made.append(self.made(net, torch.stack(noise).to(net.device), classes, wish).float().cpu())
        scaled = ((torch.cat(made) + 1) * _HALF).round().clamp(0, 2 * _HALF)
        return scaled.to(torch.uint8).numpy()

    @abstractmethod
    def begins(self, net: Any) -> tuple[int, ...]:
        """The shape of the noise that one picture is made of."""

    @abstractmethod
    def made(self, net: Any, noise: Tensor, classes: Tensor | None, wish: Mapping[str, float]) -> Tensor:
        """Pictures from -1 to 1 (N, C, S, S), made of noise (N, *begins), that show `classes` (N,)."""


def _lots_of(values: Tensor) -> Tensor:
    """A number for each picture (N,) int64, by its pixels: a sum of them in which each place has its own odd factor."""
    flat = values.flatten(1).long()
    factors = torch.arange(flat.shape[1]) * 0x5851F42D4C957F2D | 1  # wraps around, as is meant
    return (flat + 1).mul(factors).sum(1) & (2**62 - 1)


def sheet(pictures: np.ndarray) -> bytes:
    """Pictures uint8 (N, C, S, S) as one PNG file."""
    return pixels.png(grid(pictures))


def grid(pictures: np.ndarray) -> np.ndarray:
    """uint8 (N, C, S, S) -> one picture (H, W) or (H, W, 3), as many beside each other as below, white between."""
    count, channels, side, _ = pictures.shape
    wide = int(np.ceil(np.sqrt(count)))
    high, step = -(-count // wide), side + _GAP
    whole = np.full((high * step - _GAP, wide * step - _GAP, channels), 255, np.uint8)
    for place, each in enumerate(pictures):
        top, left = place // wide * step, place % wide * step
        whole[top : top + side, left : left + side] = each.transpose(1, 2, 0)
    return whole[..., 0] if channels == 1 else whole
