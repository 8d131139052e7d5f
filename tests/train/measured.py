"""A training or its plan in a process of its own: `python -m tests.train.measured planned|held JSON` prints MB."""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from danlu import ranks, tasks
from danlu.config import Train
from danlu.data.loader import Shape
from danlu.graph import Silent
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.train import room
from danlu.train.plan import Request, resolve
from danlu.train.session import fit
from danlu.train.trial import Synthetic


class Rows(Synthetic):
    """Random tokens, for evaluation too."""

    def evaluation(self, rows: int, limit: int) -> Any:
        for first in range(0, limit, rows):
            yield self.train(0, 0, Shape(min(rows, limit - first), 1))


class Processor:
    """All that the task asks of text: how many tokens there are, and their bytes."""

    def __init__(self, vocab: int):
        self.vocab_size = vocab

    def token_bytes(self) -> list[int]:
        return [4] * self.vocab_size


def asked(depth: int, vocab: int, context: int, **keys: Any) -> tuple[Request, Network]:
    """A training of four steps and two evaluations."""
    net = build(qwen3.preset(vocab, context, depth), torch.Generator().manual_seed(1)).train()
    rows, held_out = Rows(context, vocab, 400_000), Rows(context, vocab, 20_000)
    task = tasks.load("language_modeling")(Processor(vocab))
    train = Train(steps=4, evaluate_every=2, **keys)
    return Request(task, train, rows, held_out, True, time.monotonic()), net  # type: ignore[arg-type]


def planned(**keys: Any) -> float:
    """The plan's figure."""
    return resolve(*asked(**keys)).memory_mb


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
    print({"planned": planned, "held": held, "shared": shared}[sys.argv[1]](**json.loads(sys.argv[2])))
