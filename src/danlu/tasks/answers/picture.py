"""What tasks share that learn to make new pictures.

Shapes: N pictures · C channels · S pixels on each side; networks see pixels from -1 to 1
"""

from abc import abstractmethod
from typing import Any, ClassVar

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
_GAP = 2  # pixels between pictures of a grid


class NewPictures(Task):
    """Learns from pictures alone, and makes others: what is drawn for each comes from its own lot.

    A row that asks is {"count", "seed"}; the answer holds the pictures as one PNG in base64. pixel_values are uint8
    (N, C, S, S) in columns, and from -1 to 1 once something was drawn for them.
    """

    inputs = {"image": Image}
    outputs = {"image": Image}
    unsupervised = True
    shape = "picture"
    long = "drop"
    judges = True
    makes = True
    encoded_by = ("size",)
    options = {"size": (0, [0, 1024], "pixels on each side; 0: as the pictures are, at most 96")}
    wishes: ClassVar = {"count": (64, 1, 256), "seed": (1, 0, 2**53)}
    judged = 0

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        """A picture needs none."""
        return []

    def encode(self, row: Row) -> Example:
        return {"input_ids": [0], "pixel_values": self.processor.encode(row["image"])}

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
        return self.chanced(plain, Lots(lots))

    @abstractmethod
    def chanced(self, batch: Batch, lots: Lots) -> Batch:
        """A batch with pixel_values from -1 to 1, and what is drawn for each of its pictures."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": torch.tensor(len(batch["pixel_values"]))}

    # --- pictures that it makes ---

    def asking(self, row: Row) -> list[Example]:
        """How many, and drawn by what.

        Raises:
            UserError: E621, another wish, or one that cannot be.
        """
        asked = {name: usual for name, (usual, *_) in self.wishes.items()} | row
        for name, value in asked.items():
            _, least, most = self.wishes.get(name, (0, 0, -1))
            if type(value) is not int or not least <= value <= most:
                valid = ", ".join(f"{each} ({low} - {high:,})" for each, (_, low, high) in self.wishes.items())
                raise UserError("E621", name=name, found=value, valid=valid)
        return [{"input_ids": [0], "wish": np.array([asked["count"], asked["seed"]], np.int64)}]

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """{"image": a PNG of all pictures in rows and columns, in base64, "count", "seed"}."""
        found = []
        for count, seed in batch["wish"].tolist():
            image = pixels.written(sheet(self.pictures(net, count, seed)))
            found.append({"image": image, "count": count, "seed": seed})
        return found

    def pictures(self, net: Any, count: int, seed: int) -> np.ndarray:
        """uint8 (N, C, S, S); the k-th is a function of the seed and k alone."""
        made = []
        with torch.no_grad():
            for first in range(0, count, _TOGETHER):
                places = range(first, min(first + _TOGETHER, count))
                noise = [torch.randn(self.begins(net), generator=generator(seed, "sample", k)) for k in places]
                made.append(self.made(net, torch.stack(noise).to(net.device)).float().cpu())
        scaled = ((torch.cat(made) + 1) * _HALF).round().clamp(0, 2 * _HALF)
        return scaled.to(torch.uint8).numpy()

    @abstractmethod
    def begins(self, net: Any) -> tuple[int, ...]:
        """The shape of the noise that one picture is made of."""

    @abstractmethod
    def made(self, net: Any, noise: Tensor) -> Tensor:
        """Pictures from -1 to 1 (N, C, S, S), made of noise (N, *begins)."""


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
