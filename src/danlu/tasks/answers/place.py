"""What tasks share whose answer says where in a picture something is: pictures are seen anew, and it moves along."""

from abc import abstractmethod

import numpy as np
import torch

from danlu.data.augment import Augmentation, Lots, Moves
from danlu.tasks.answers.seen import Seen
from danlu.tasks.task import Batch, Example, Row

_ANEW = ("crop", "flip", "zoom", "colour")


class Placed(Seen):
    """An answer in pixels of the picture as it came; pixel_values uint8 (N, C, S, S) in columns."""

    labelled = True
    step_tokens = 8
    options = {
        **Seen.options,
        "zoom": (0.0, [0.0, 1.0], "by what share pictures become larger or smaller at most in training"),
        "colour": (0.0, [0.0, 1.0], "by how much brightness, contrast and saturation change at most in training"),
    }

    @property
    def choices(self) -> tuple[str, float]:
        return "C", len(self.labels)

    def asking(self, row: Row) -> list[Example]:
        """With the size of the picture, in whose pixels the answer is to be."""
        width, height = self.processor.opened(row["image"]).size
        return [self.encode({"image": row["image"]}) | {"extent": np.array([height, width])}]

    def extents(self, batch: Batch) -> list[list[int]]:
        """Height and width of each picture of a batch; as they are encoded, where nobody asked about them."""
        usual = [self.processor.size] * 2
        found: list[list[int]] = batch["extent"].tolist() if "extent" in batch else [usual] * len(batch["pixel_values"])
        return found

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Pictures as they are seen in one epoch, and what is known of their places moved along."""
        if "lots" not in batch:
            return batch
        lots, seen = Lots(batch["lots"]), {name: each for name, each in batch.items() if name != "lots"}
        anew = Augmentation(**{name: self.chosen[name] for name in _ANEW})
        moves = anew.moves(lots)
        seen["pixel_values"] = anew.coloured(moves(batch["pixel_values"]), lots)
        return seen | self.moved(moves, batch)

    @abstractmethod
    def moved(self, moves: Moves, batch: Batch) -> Batch:
        """The columns of a batch that say where things are, once its pictures are moved so."""
