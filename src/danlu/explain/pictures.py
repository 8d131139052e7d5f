"""Why a picture is taken for what it is: the parts of its pixels, and of the regions that they lie in.

A region is a patch of a network that reads such, else a square of an eighth of the picture's side.
Shapes: N copies of a picture · C channels · S pixels on each side · T places of a network, patches behind a class token
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu.explain.explanation import ATTENTION, Case, Explanation
from danlu.modalities.modality import Word
from danlu.nn.stems import Patches
from danlu.tasks.task import Answer, Example

if TYPE_CHECKING:
    from danlu.model import Model

Batch = dict[str, Tensor]
_REGIONS = 8  # on each side, where a network has no patches
_LARGE = 256  # pixels on each side of what is drawn, about
_FOR, _AGAINST = (200, 90, 20), (31, 111, 139)  # what speaks for an answer, and against it
_FAINTEST, _STRONGEST = 0.75, 0.85  # how much of the picture is grey under a map; how much of the highest score covers


@dataclass(frozen=True)
class Seen:
    """The picture as the network reads it, uint8 (S, S, C), and the part of each pixel (S, S)."""

    image: np.ndarray
    parts: np.ndarray
    side: int  # pixels on each side of a region

    across: int  # regions in a row


def explain(model: "Model", example: Example, answer: Answer) -> Explanation:
    """Why a model gives a picture this answer."""
    return _Picture(model, example, answer).explained()


class _Picture(Case):
    """One picture, with any of its regions gone: in the mean colour of the pictures that were learned from."""

    bend = 4  # from one colour on, norms take the faintest picture for a whole one

    def __init__(self, model: "Model", example: Example, answer: Answer):
        embed, size = model.net.embed, model.processor.size
        self.side = embed.config.patch if isinstance(embed, Patches) else -(-size // _REGIONS)
        if self.side == size:  # all pixels are one patch
            self.side = -(-size // _REGIONS)
        token = isinstance(embed, Patches) and embed.token is not None
        self.across = whole = max(1, size // self.side if isinstance(embed, Patches) else -(-size // self.side))
        rows = torch.arange(size).div(self.side, rounding_mode="floor").clamp(max=whole - 1)
        self.regions = (rows[:, None] * whole + rows).flatten() + token  # of each pixel the number of its word
        named = [Word(f"{row + 1}/{column + 1}", ()) for row in range(whole) for column in range(whole)]
        self.named = [*([Word("class", (), fixed=True)] if token else []), *named]
        self.pixels = nn.Identity()  # what passes through it can be replaced
        super().__init__(model, example, answer)

    def words_of(self, model: "Model", example: Example) -> Sequence[Word]:
        return self.named

    def without(self, gone: Sequence[Sequence[int]], blank: Batch | None = None) -> Batch:
        blank = blank or self._blanks[0]
        lost = torch.zeros(len(gone), len(self.words), dtype=torch.bool)
        for copy, words in enumerate(gone):
            lost[copy, list(words)] = True
        size = self._real["pixel_values"].shape[-1]
        mask = lost[:, self.regions].view(-1, 1, size, size).to(self.net.device)
        copies = {name: each.expand(len(gone), *each.shape[1:]) for name, each in self._real.items()}
        return copies | {"pixel_values": torch.where(mask, blank["pixel_values"], self._real["pixel_values"])}

    def number(self, batch: Batch) -> Tensor:
        values = batch["pixel_values"]
        passed = self.pixels(_vectors(values))
        return super().number(batch | {"pixel_values": passed.transpose(1, 2).unflatten(2, values.shape[-2:])})

    def _vectors(self, batch: Batch) -> Tensor:
        return _vectors(batch["pixel_values"])

    @property
    def _source(self) -> nn.Module:
        return self.pixels

    def _by_word(self, places: Tensor) -> list[float]:
        if len(places) == len(self.words):
            return [float(each) for each in places]
        sums = torch.zeros(len(self.words), dtype=places.dtype).index_add(0, self.regions, places)
        return [float(each) for each in sums]

    def _integrated(self, points: int, number: Any = None) -> Tensor:
        self.parts = super()._integrated(points)
        return self.parts

    def explained(self) -> Explanation:
        found = super().explained()
        image = self._real["pixel_values"][0].permute(1, 2, 0).cpu().numpy()
        return replace(found, seen=Seen(image, self.parts.view(image.shape[:2]).numpy(), self.side, self.across))


def _vectors(pixels: Tensor) -> Tensor:
    """(N, C, S, S) -> fp32 (N, S², C)."""
    return pixels.float().flatten(2).transpose(1, 2)


# --- drawn -------------------------------------------------------------------------------------------------


def drawn(found: Explanation) -> np.ndarray:
    """Beside the picture, on it, what the pixels' parts are and, where there is such, what attention may bring: uint8
    (H, W, 3). Orange speaks for the answer, blue against it."""
    seen = found.seen
    assert isinstance(seen, Seen)
    image = np.broadcast_to(seen.image, (*seen.image.shape[:2], 3)).astype(np.float64)
    maps = [seen.parts]
    if ATTENTION in found.scores:
        maps.append(_spread(found, ATTENTION, len(image)))
    sides = [image, *(_covered(image, each) for each in maps)]
    factor = max(1, _LARGE // len(image))
    gap = np.full((len(image) * factor, 8, 3), 255.0)
    large = [each.repeat(factor, 0).repeat(factor, 1) for each in sides]
    parts = [part for each in large for part in (each, gap)][:-1]
    return np.concatenate(parts, 1).round().clip(0, 255).astype(np.uint8)


def _spread(found: Explanation, name: str, size: int) -> np.ndarray:
    """The scores of regions in each of their pixels (S, S)."""
    assert isinstance(found.seen, Seen)
    scores = np.array([score for score, word in zip(found.scores[name], found.words, strict=True) if not word.fixed])
    across = found.seen.across
    rows = np.minimum(np.arange(size) // found.seen.side, across - 1)
    spread: np.ndarray = scores.reshape(across, across)[rows[:, None], rows]
    return spread


def _covered(image: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """A pale grey picture under the colours of its parts (S, S)."""
    most = np.quantile(np.abs(parts), 0.99) or np.abs(parts).max() or 1.0
    grey = 255 - _FAINTEST * (255 - image.mean(-1, keepdims=True).repeat(3, -1))
    share = np.minimum(np.abs(parts) / most, 1.0)[..., None] * _STRONGEST
    covered: np.ndarray = grey * (1 - share) + np.where(parts[..., None] > 0, _FOR, _AGAINST) * share
    return covered
