"""What is killed and failed: trainings of milliseconds of six kinds, by two optimizers, in two precisions."""

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu import files
from danlu.config import Train
from danlu.modalities.text import Text
from danlu.models import qwen3
from danlu.models.architecture import build
from danlu.nn.linear import Linear
from danlu.nn.losses import IGNORE
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch, Example, Row, Task
from danlu.train.plan import Plan, Request
from danlu.train.session import METRICS, Result
from tests.faults import judging, making
from tests.train import tiny

_SHOWN = ("step", "loss", "lr", "norm", "tokens", "validation")  # of the log: what no clock decides
_FACTS = ("steps", "tokens", "best_step", "skipped_steps", "validation_loss")
_MASKED = 0  # the token that hides another


class MaskedTokens(LanguageModeling):
    """An encoder: guess the tokens that are hidden, seeing both sides."""

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        return _hidden(batch, torch.rand(batch["input_ids"].shape, generator=generator) < 0.3)

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        places = torch.arange(batch["input_ids"].shape[1]) % 4 == 1
        return super().measure(net, _hidden(batch, places.expand_as(batch["input_ids"])))


def _hidden(batch: Batch, places: Tensor) -> Batch:
    ids, places = batch["input_ids"], places & (batch["segment_ids"] > 0)
    return batch | {"input_ids": ids.masked_fill(places, _MASKED), "labels": ids.masked_fill(~places, IGNORE)}


class Tower(nn.Module):
    """Two layers with a norm's worth of vectors: (B, inputs) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__()
        self.blocks = nn.ModuleList([Linear(inputs, 12), Linear(12, 12)])
        self.out = Linear(12, outputs)
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.3, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.out.weight.dtype)
        for block in self.blocks:
            x = F.gelu(block(x))
        return self.out(x)


class Pair(nn.Module):
    """A generator of rows and a discriminator of them."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.discriminator, self.generator = Tower(tiny.CONTEXT, 1, generator), Tower(4, tiny.CONTEXT, generator)


class Adversarial(Task):
    """Two parts against each other (Goodfellow et al. 2014, arXiv:1406.2661), on rows of tokens taken as numbers."""

    inputs, outputs = {"text": Text}, {}
    parts = ("discriminator", "generator")

    def encode(self, row: Row) -> Example:
        raise NotImplementedError("its rows are columns already")

    def build(self, backbone: nn.Module) -> nn.Module:
        return backbone

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch | {"noise": torch.randn(len(batch["input_ids"]), 4, generator=generator)}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return dict.fromkeys(self.parts, torch.tensor(float(len(batch["input_ids"]))))

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        made = net.generator(batch["noise"])
        if part == "generator":
            return {part: F.softplus(-net.discriminator(made).float()).sum()}
        false = F.softplus(net.discriminator(made.detach()).float()).sum()
        return {part: false + F.softplus(-net.discriminator(batch["input_ids"] / tiny.VOCAB).float()).sum()}

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        rows = len(batch["input_ids"])
        noise = torch.linspace(-1, 1, rows * 4).view(rows, 4)
        return {"loss": sum(self.loss(net, batch | {"noise": noise}, part)[part] for part in self.parts), "rows": rows}  # type: ignore[dict-item]

    def report(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"] / sums["rows"]}

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        raise NotImplementedError("it is only trained")


@dataclass(frozen=True)
class Work:
    """One training, by its name: a kind of WORKS, its optimizer, its precision, its micro-batches."""

    kind: str
    optimizer: str = "adamw"
    precision: str = "fp32"
    accumulate: int = 1
    steps: int = 6

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.optimizer}-{self.precision}-{self.accumulate}"

    @property
    def plan(self) -> Plan:
        """Saves every second step, looks every third, and keeps the fourth."""
        rows = 4 // self.accumulate
        return replace(
            tiny.PLAN, optimizer=self.optimizer, precision=self.precision, rows=rows, accumulate=self.accumulate,
            steps=self.steps, evaluate_every=3, save_every=2, stable_step=4, dropout=0.1,
        )  # fmt: skip

    def network(self) -> nn.Module:
        generator = torch.Generator().manual_seed(3)
        if self.kind == "pair":
            return Pair(generator)
        if self.kind in judging.COLUMNS:
            return judging.network(self.kind, generator)
        if self.kind == making.KIND:
            return making.network(generator)
        shape = qwen3.preset(tiny.VOCAB, tiny.CONTEXT, 1, width=16, heads=2, head_dim=8, hidden=32, dropout=0.1)
        if self.kind == "encoder":
            shape = replace(shape, core=replace(shape.core, mask="full"))
        return build(shape, generator).train()

    def request(self, data: Path) -> Request:
        """`data` is a folder that `tiny.loaders` has filled or will fill."""
        if self.kind in judging.COLUMNS:
            return judging.request(self.kind, data)
        kinds = {"gpt": LanguageModeling, "encoder": MaskedTokens, "pair": Adversarial}
        train = Train(average=0.9 if self.optimizer == "muon" else 0.0)  # half of them with a mean of their weights
        if self.kind == making.KIND:
            return making.request(data, train)
        return tiny.request(data, train, kinds[self.kind](tiny.Processor()))  # type: ignore[abstract, arg-type]


WORKS = {
    kind: [Work(kind, *rest) for rest in product(("adamw", "muon"), ("fp32", "bf16"), (1, 4))]
    for kind in ("gpt", "encoder", "pair", *judging.COLUMNS, making.KIND)
}


class Watching:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progress(self, done: float, total: float, note: str) -> None: ...

    def line(self, line: str) -> None:
        self.lines.append(line)


def outcome(result: Result, out: Path) -> dict[str, Any]:
    """All that an interrupted training must have in common with one that was not."""
    log = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    found = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        "weights": files.tensors_hash(result.weights),
        "log": [{name: entry[name] for name in _SHOWN if name in entry} for entry in log],
        "facts": {name: result.facts[name] for name in _FACTS},
        "files": [str(path.relative_to(out)) for path in found],
        "tensors": [files.sha256(path) for path in found if path.suffix == ".safetensors"],
    }
