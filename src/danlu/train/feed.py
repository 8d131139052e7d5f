"""Batches on their way from the host to the network: a step's at once, and on a GPU those of the next step ahead.

What depends on values is decided here, while they lie on the host. On the device no such question is asked again, so
that the host can be many kernels ahead of it: it waits once a step, for the loss and the norm of the gradient.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from danlu.data.loader import IGNORE, Loader, Shape
from danlu.randomness import generator
from danlu.tasks.task import Batch, Task
from danlu.train.distributed import Alone


@dataclass(frozen=True)
class Fed:
    """The micro-batches of a step, where the network is."""

    batches: list[Batch]
    counts: dict[str, float]  # what each loss term is divided by, on this rank
    tokens: int


class Feed:
    """Makes the batches of steps; remembers those of one."""

    def __init__(self, task: Task, seed: int, ranks: Alone, device: torch.device, steps: int):
        self.task, self.seed, self.ranks, self.device = task, seed, ranks, device
        self.steps = steps  # of the whole training; 0: samples are whole from the first on
        self.waited = 0.0  # seconds that the network did, since this was last set to 0
        self._made: tuple[tuple[int, Shape], Fed] | None = None

    def step(self, loader: Loader, step: int, shape: Shape) -> Fed:
        """The batches of a step that is cut into this shape."""
        if self._made is None or self._made[0] != (step, shape):
            with self._waiting():
                self._made = (step, shape), self._fed(loader, step, shape)
        return self._made[1]

    def ahead(self, loader: Loader, step: int, shape: Shape) -> None:
        """On a GPU: make the batches of a step that comes later, while the device is at work on what it was given."""
        if self.device.type != "cpu":
            self._made = (step, shape), self._fed(loader, step, shape)

    def _fed(self, loader: Loader, step: int, shape: Shape) -> Fed:
        self._made = None  # the last step's can go
        counts: dict[str, float] = {}
        tokens, batches = 0, []
        for micro in range(shape.accumulate):
            batch = self._batch(loader, step, micro, shape)
            for name, value in self.task.counts(batch).items():
                counts[name] = counts.get(name, 0.0) + float(value)
            tokens += int((batch["segment_ids"] > 0).sum())
            batches.append(placed(batch, self.device))
        return Fed(batches, counts, tokens)

    def _batch(self, loader: Loader, step: int, micro: int, shape: Shape) -> Batch:
        batch = loader.train(step, micro, shape)
        own = self.ranks.own(self.task.corrupt(batch, generator(self.seed, "corrupt", step, micro)))
        return self.task.staged(own, min(step / self.steps, 1.0) if self.steps else 1.0)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start


def placed(batch: Batch, device: torch.device) -> Batch:
    """A batch of the host on `device`; on the host it is what it was.

    On a device `segment_ids` are left out where every row is one document without padding, since all see all then; and
    where not every label counts, `counted` (N,) holds the places of those that do, in the flattened batch.
    """
    if device.type == "cpu":
        return batch
    known = dict(batch)
    if "labels" in batch and not bool((learned := batch["labels"].flatten() != IGNORE).all()):
        known["counted"] = learned.nonzero().flatten()
    segments = batch.get("segment_ids")
    if segments is not None and bool((segments == segments[:, :1]).all()):
        del known["segment_ids"]
    return {name: sent(tensor, device) for name, tensor in known.items()}


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`; on its way to CUDA it is pinned, and the host does not wait for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
