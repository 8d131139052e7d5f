"""A training or its plan in a process of its own: `python -m tests.train.measured planned|held JSON` prints MB."""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from danlu import models, ranks, room
from danlu.config import Train
from danlu.data.loader import Shape
from danlu.graph import Silent
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.train import memory
from danlu.train.plan import Request, draft, resolve
from danlu.train.session import fit
from danlu.train.trial import Synthetic, stands_in


class Rows(Synthetic):
    """Random tokens, for evaluation too."""

    def evaluation(self, rows: int, limit: int) -> Any:
        for first in range(0, limit, rows):
            yield self.train(0, 0, Shape(min(rows, limit - first), 1))


def asked(
    depth: int, vocab: int, context: int, arch: str = "qwen3", task: str = "language_modeling", **keys: Any
) -> tuple[Request, Network]:
    """A training of four steps and two evaluations."""
    shape = models.preset(arch, vocab, context, depth)
    net = build(shape, torch.Generator().manual_seed(1)).train()
    rows, held_out = Rows(context, vocab, 400_000), Rows(context, vocab, 20_000)
    learned, _ = stands_in(task, shape, vocab, context, {})
    train = Train(steps=4, evaluate_every=2, **keys)
    return Request(learned, train, rows, held_out, "random", time.monotonic()), net  # type: ignore[arg-type]


def planned(**keys: Any) -> float:
    """The plan's figure."""
    with tempfile.TemporaryDirectory() as folder:
        request, net = asked(**keys)
        return resolve(replace(request, folder=Path(folder)), net).memory_mb


def forecast(**keys: Any) -> float:
    """What follows from the code alone, without a step."""
    request, net = asked(**keys)
    return memory.forecast(net, draft(request, net)) / 1e6


def held(**keys: Any) -> float:
    """The most that this process held, after planning, training and saving."""
    with tempfile.TemporaryDirectory() as folder:
        fit(*asked(**keys), Path(folder), 1, Silent())
    return room.peak() / 1e6


def shared(folder: str, parallel: str, **keys: Any) -> str:
    """Of one rank among others: what its plan says, and the most that it held."""
    request, net = asked(**keys)
    result = fit(replace(request, parallel=parallel), net, Path(folder), 1, Silent())
    ranks.leave()
    return f"{result.plan.memory_mb} {room.peak() / 1e6}"


if __name__ == "__main__":
    print(
        {"planned": planned, "forecast": forecast, "held": held, "shared": shared}[sys.argv[1]](
            **json.loads(sys.argv[2])
        )
    )
