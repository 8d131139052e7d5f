"""A training of milliseconds: a hundred rows of learnable tokens, one narrow layer, a plan without measurements."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danlu.config import Train
from danlu.data.columns import Columns, ColumnWriter
from danlu.data.loader import Loader
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.tasks.language_modeling import LanguageModeling
from danlu.train.loop import Training
from danlu.train.plan import Plan, Request
from danlu.train.session import METRICS

VOCAB, CONTEXT = 48, 32


class Processor:
    """All that the task asks of text: how many tokens there are, and their bytes."""

    vocab_size = VOCAB

    def token_bytes(self) -> list[int]:
        return [1] * VOCAB


def columns(folder: Path, rows: int = 120, seed: int = 1) -> Columns:
    """Rows of 4 to 60 tokens in which the next is mostly the last plus three; half of them count."""
    random = np.random.Generator(np.random.PCG64(seed))
    writer = ColumnWriter(folder, {"input_ids": "uint16", "loss_mask": "uint8"})
    for _ in range(rows):
        size = int(random.integers(4, 60))
        ids = random.integers(0, VOCAB, size)
        for at in range(1, size):
            if random.random() < 0.8:
                ids[at] = (ids[at - 1] + 3) % VOCAB
        writer.add({"input_ids": ids, "loss_mask": random.integers(0, 2, size)})
    writer.close()
    return Columns(folder)


def loaders(folder: Path) -> tuple[Loader, Loader]:
    for name, rows, seed in (("train", 120, 1), ("valid", 20, 2)):
        columns(folder / name, rows, seed)
    return opened(folder)


def opened(folder: Path) -> tuple[Loader, Loader]:
    """The loaders of columns that are written already."""
    made = [Loader(Columns(folder / name), CONTEXT, long="split", seed=5) for name in ("train", "valid")]
    return made[0], made[1]


def network(dropout: float = 0.0, seed: int = 3) -> Network:
    shape = qwen3.preset(VOCAB, CONTEXT, 1, width=16, heads=2, head_dim=8, hidden=32, dropout=dropout)
    return build(shape, torch.Generator().manual_seed(seed)).train()


PLAN = Plan(
    depth=1, rows=4, accumulate=2, context=CONTEXT, optimizer="adamw", lr=0.01, weight_decay=0.1, precision="fp32",
    threads=1, dropout=0.1, steps=8, evaluate_every=3, evaluate_rows=4, save_every=2, stable_step=4,
)  # fmt: skip


def training(train: Train | None = None, task: Any = None, net: Network | None = None, **plan: Any) -> Training:
    task, net = task or LanguageModeling(Processor()), net or network()  # type: ignore[arg-type]
    return Training(task, net, train or Train(), replace(PLAN, **plan), seed=9)


def request(folder: Path, train: Train | None = None, task: Any = None) -> Request:
    task = task or LanguageModeling(Processor())  # type: ignore[arg-type]
    return Request(task, train or Train(), *loaders(folder), begins="random", started=0.0)


class Watch:
    """A view that remembers lines and may do something at a step."""

    def __init__(self, act: Callable[[float], None] = lambda step: None):
        self.lines: list[str] = []
        self.act = act

    def progress(self, done: float, total: float, note: str) -> None:
        self.act(done)

    def line(self, line: str) -> None:
        self.lines.append(line)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def log(out: Path) -> list[dict[str, Any]]:
    """The log of a training without what a clock says."""
    entries = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in ("seconds", "waited")} for entry in entries]
