"""Trainings of milliseconds of danlu's own GAN, two convolutional networks against each other, on stripes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from danlu.config import Train
from danlu.data.columns import Columns, ColumnWriter
from danlu.data.loader import Loader
from danlu.modalities.image import Image
from danlu.models import dcgan
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.tasks.adversarial_image_generation import AdversarialImageGeneration
from danlu.tasks.task import Task
from danlu.train.plan import Request

KIND = "gan"
_SIDE = 8  # pixels
_SEEN = Image(_SIDE, (0.5,), (0.25,))


def _task() -> Task:
    return AdversarialImageGeneration(_SEEN, (), 1, {"latent": 4})


def network(generator: torch.Generator) -> Network:
    """Four channels at the picture's own size."""
    shape = dcgan.preset(0, 1, 1, width=4, dropout=0.1, image=_SIDE, channels=1)
    return build(_task().shaped(shape), generator).train()


def request(data: Path, train: Train) -> Request:
    """`data` is a folder for the rows."""
    return Request(_task(), train, *_loaders(data), begins="random", started=0.0)


def _loaders(data: Path) -> Iterator[Loader]:
    for name, rows, seed in (("train", 40, 1), ("valid", 8, 2)):
        random = np.random.Generator(np.random.PCG64(seed))
        shape = (1, _SIDE, _SIDE)
        dtypes = {"input_ids": "uint16", "pixel_values": "uint8"}
        writer = ColumnWriter(data / name, dtypes, shapes={"pixel_values": shape})
        for _ in range(rows):
            waves = np.sin(np.arange(_SIDE) + random.uniform(0, 6)) * 100 + 128
            writer.add({"input_ids": [0], "pixel_values": np.broadcast_to(waves, shape).astype(np.uint8)})
        writer.close()
        yield Loader(Columns(data / name), 1, long="drop", seed=5, ahead=0)
