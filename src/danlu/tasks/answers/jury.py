"""What a classifier of pictures says of those that were made, beside real ones.

Shapes: N pictures · C channels · S pixels on each side · D features · K classes
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu import pixels
from danlu.data.columns import Columns
from danlu.metrics.generation import frechet, nearest, spread_of, verdicts
from danlu.nn.losses import wide
from danlu.tasks.answers.picture import sheet

_MOST, _SHOWN, _SEED = 1000, 64, 1  # pictures that are made, and shown; by what they are drawn
_TOGETHER, _PIECE = 128, 4096  # pictures that are judged, and compared, at once
MADE, REAL = "made", "real"


class Jury:
    """A model of image_classification, by whose features and answers pictures are compared."""

    def __init__(self, judge: Any):
        self.judge = judge

    @property
    def labels(self) -> tuple[str, ...]:
        """What it tells apart."""
        labels: tuple[str, ...] = self.judge.task.labels
        return labels

    def seen(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, C, S, S) -> features (N, D) and the share of each class (N, K): each as the file it would be."""
        judge, found = self.judge, list[tuple[np.ndarray, np.ndarray]]()
        with torch.no_grad():
            for first in range(0, len(pictures), _TOGETHER):
                written = [_written(each) for each in pictures[first : first + _TOGETHER]]
                values = torch.from_numpy(np.stack([judge.processor.encode(each) for each in written]))
                batch = judge.processor.scaled({"pixel_values": values.to(judge.net.device)})
                features = judge.net.features(batch)
                shares = wide(judge.net.head(features)).softmax(-1)
                found.append((wide(features).cpu().numpy(), shares.cpu().numpy()))
        return np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found])

    def compared(
        self, pictures: np.ndarray, held_out: np.ndarray, asked: Sequence[str] = ()
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Figures of pictures beside held-out ones, and {label: share of the pictures}.

        `asked`: the class that each should show, where it was told one; it counts where the judge knows them all.
        """
        features, shares = self.seen(pictures)
        figures = {"frechet": frechet(features, self.seen(held_out)[0]), **verdicts(shares)}
        if asked and set(asked) <= set(self.labels):
            right = [self.labels[place] == label for place, label in zip(shares.argmax(1), asked, strict=True)]
            figures["as_asked"] = sum(right) / len(right)
        return figures, dict(zip(self.labels, spread_of(shares), strict=True))


@dataclass(frozen=True)
class Heard:
    """Of pictures that were made and of real ones: {who: figures}, {who: {label: share}}; and a sheet of the first."""

    figures: dict[str, dict[str, float]]
    spread: dict[str, dict[str, float]]
    sheet: bytes


def heard(model: Any, judge: Any, columns: Path, split: str) -> Heard:
    """What is to be said of pictures that a model makes, as many as are held out in a split (1,000 at most).

    How near the nearest picture to train on is, is told of those that were made and, in the place of real ones, of
    those held out, which no training has seen: nothing was learned by heart where the first are no nearer. Where
    classes are learned, as many of each are made as are held out. The rest of the figures needs a judge; those of real
    ones are then of as many to train on.
    """
    held_out = next(_pieces(columns / split, _MOST))
    shown = _classes(columns / split, len(held_out)) if model.task.classes else []
    made = model.task.pictures(model.net, len(held_out), _SEED, shown)
    figures = {MADE: {"nearest": nearest(made, _pieces(columns / "train"))}}
    figures[REAL] = {"nearest": nearest(held_out, _pieces(columns / "train"))}
    spread = dict[str, dict[str, float]]()
    if judge is not None:
        for who, pictures in {MADE: made, REAL: next(_pieces(columns / "train", len(made)))}.items():
            asked = [model.task.classes[each] for each in shown] if who == MADE else []
            told, spread[who] = Jury(judge).compared(pictures, held_out, asked)
            figures[who] = told | figures[who]
    return Heard(figures, spread, sheet(made[:_SHOWN]))


def _pieces(folder: Path, most: int | None = None) -> Iterator[np.ndarray]:
    """The pictures of a split (N, C, S, S), some after others."""
    columns = Columns(folder)
    count = min(len(columns), most or len(columns))
    for first in range(0, count, _PIECE):
        yield columns.arrays("pixel_values", np.arange(first, min(first + _PIECE, count)))


def _classes(folder: Path, count: int) -> list[int]:
    """The numbers of the classes of the first pictures of a split."""
    found: list[int] = np.asarray(Columns(folder).flat("labels"))[:count].tolist()
    return found


def _written(picture: np.ndarray) -> str:
    """A picture (C, S, S) as a PNG file in base64, as whoever asks a classifier sends it."""
    array = picture.transpose(1, 2, 0)
    return pixels.written(pixels.png(array[..., 0] if len(picture) == 1 else np.ascontiguousarray(array)))
