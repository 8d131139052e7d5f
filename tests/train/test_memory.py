"""Memory: the forecast is near what a step takes, what does not fit is cut finer, and what cannot be is said first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch
from danlu.train import memory, probe, room, split
from danlu.train.plan import Plan
from tests.train.tiny import PLAN, Processor, loaders, request

MB = 1e6
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured through /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    loaders(folder)
    return folder


SHAPES = {  # layers, width, context, rows, vocabulary, and what differs from the plan
    "activations": (4, 192, 256, 16, 2000, {}),
    "bf16": (4, 192, 256, 16, 2000, {"precision": "bf16"}),
    "scores": (4, 128, 512, 4, 1000, {"attention": "written"}),
    "weights": (6, 512, 64, 1, 8000, {"optimizer": "adamw"}),
    "muon": (6, 512, 64, 1, 8000, {"optimizer": "muon"}),
    "micro-batches": (4, 192, 256, 8, 4000, {"accumulate": 3}),
}


def large(name: str) -> tuple[Network, Plan]:
    layers, width, context, rows, vocab, settings = SHAPES[name]
    net = build(qwen3.preset(vocab, context, layers, width=width, heads=4), torch.Generator().manual_seed(1))
    return net.train(), replace(
        PLAN, **({"rows": rows, "accumulate": 1, "context": context, "dropout": 0.0} | settings)
    )


class Filled:
    """Rows without padding, of any context."""

    def __init__(self, context: int, vocab: int):
        self.context, self.vocab = context, vocab

    def train(self, step: int, micro: int, shape: Any) -> Batch:
        ids = (torch.arange(shape.rows * self.context) * 7 % self.vocab).view(shape.rows, self.context)
        places = torch.arange(self.context).expand_as(ids).contiguous()
        return {"input_ids": ids, "labels": ids.roll(-1, 1), "position_ids": places, "segment_ids": ids * 0 + 1}


@linux
@pytest.mark.parametrize("name", SHAPES)
def test_the_forecast_is_near_what_a_step_takes(name: str, data: Path) -> None:
    """What the process itself holds is left out of both: it differs between a test run and a command."""
    net, made = large(name)
    processor = Processor()
    processor.vocab_size = SHAPES[name][4]
    processor.token_bytes = lambda: [1] * processor.vocab_size  # type: ignore[method-assign]
    asked = replace(request(data), task=LanguageModeling(processor), loader=Filled(made.context, processor.vocab_size))  # type: ignore[arg-type]
    shares = memory.shares(net, made)
    held = sum(p.numel() for p in net.parameters()) * 4  # before the step begins
    forecast = sum(shares.values()) - shares["process"] - held
    measured = probe.peak(lambda: split.one_step(asked, net, made))
    assert measured is not None
    grown = measured - room.resident()
    assert 0.65 < forecast / grown < 1.5
