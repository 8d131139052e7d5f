"""What a run would do and cost, before it does anything: `danlu run RECIPE --plan`.

Training is forecast from a few real steps of a throw-away model; reading and encoding from the rates of this machine's
earlier runs, or from modest ones where there are none.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu import files
from danlu.artifact import Lineage
from danlu.graph import STORE, Life, State
from danlu.life import Node
from danlu.messages import text

_RATES = {"prepare": 1.5e6, "encode": 1.5e6}  # bytes per second until this machine has shown its own
_BYTES_PER_TOKEN = 3.5
_EVALUATION_SHARE = 0.08  # of the training before it


@dataclass
class Cost:
    """One stage's forecast: seconds, and MB of memory and of disk."""

    seconds: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0


def forecast(life: Life, to: str | None = None) -> list[dict[str, Any]]:
    """One row per stage: what would happen, why, and the forecast cost of what would run."""
    size, costs, rows = Sizes(life), [Cost()], []
    for state in life.states(to):
        spent = sum(cost.seconds for cost in costs)
        costs.append(Cost() if state.status == "cached" else _cost(life, state, size, spent))
        rows.append(_row(state.node.name, text(f"plan.{state.status}"), "; ".join(state.why), costs[-1]))
    disk = sum(cost.disk_mb for cost in costs)
    total = Cost(sum((cost.seconds for cost in costs), 0.0), max(cost.memory_mb for cost in costs), disk)
    return [*rows, _row(text("plan.total"), "", "", total)]


def _row(stage: str, status: str, why: str, cost: Cost) -> dict[str, Any]:
    return {
        text("plan.stage"): stage,
        text("plan.status"): status,
        text("plan.why"): why,
        text("plan.minutes"): round(cost.seconds / 60, 2),
        text("plan.memory"): round(cost.memory_mb),
        text("plan.disk"): round(cost.disk_mb, 1),
    }


class Sizes:
    """How much text there is, exactly where the rows are encoded already, else from the raw files."""

    def __init__(self, life: Life):
        self.life = life
        self.raw: float = sum(path.stat().st_size for path in life.raw_files(life.nodes[0]))
        limit = life.loaded.recipe.data.limit_mb
        self.raw = min(self.raw, limit * 1e6) if limit else self.raw

    def bytes(self, state: State) -> float:
        """Raw bytes behind a node."""
        if state.node.raw:
            return (
                float(sum(path.stat().st_size for path in self.life.raw_files(state.node)))
                if state.node.name != "prepare"
                else self.raw
            )
        if state.node.name.endswith("_finetune") and (tune := self.life.loaded.recipe.finetune) and tune.data:
            return self._raw_bytes(next(node for node in self.life.nodes if node.name == "prepare_finetune"))
        return self.raw * (0.25 if state.node.name.endswith("_finetune") else 1.0)

    def _raw_bytes(self, node: Node) -> float:
        return float(sum(path.stat().st_size for path in self.life.raw_files(node)))

    def tokens(self, state: State) -> tuple[int, int]:
        """(training tokens, vocabulary) of the columns that a training node reads."""
        folder = self.life.folders.get(state.node.inputs["columns"])
        if folder:
            table = files.read_json(folder / "tokens.json")
            return int(table["splits"]["train"]["tokens"]), int(table["tokenizer"]["vocab_size"])
        wanted = self.life.loaded.recipe.tokenizer.vocab_size
        source = (
            self.raw if state.node.name != "finetune" else self.bytes(State(_encode_of(self.life, state), "run", []))
        )
        return max(1000, int(source * 0.9 / _BYTES_PER_TOKEN)), 4096 if wanted == "auto" else wanted


def _encode_of(life: Life, state: State) -> Any:
    return next(node for node in life.nodes if node.name == state.node.inputs["columns"])


def _cost(life: Life, state: State, size: Sizes, spent: float) -> Cost:
    stage = state.node.stage
    if stage in _RATES:
        data = size.bytes(state)
        return Cost(2 + data / _rate(life.loaded.runs, stage), 350 + data * 12 / 1e6, data * 1.3 / 1e6)
    if stage in ("pretrain", "finetune"):
        return _training(life, state, size)
    return Cost(3 + spent * _EVALUATION_SHARE, 700, 1 if stage == "evaluate" else 15)


def _rate(runs: Path, stage: str) -> float:
    """Bytes per second of this machine's latest run of a stage."""
    for folder in sorted((runs / STORE).glob(f"{stage}-*"), key=lambda p: p.stat().st_mtime, reverse=True):
        if (folder / "lineage.json").exists():
            facts = Lineage.read(folder)
            if facts.facts.get("bytes") and facts.made.get("seconds"):
                return float(facts.facts["bytes"]) / float(facts.made["seconds"])
    return _RATES[stage]


def _training(life: Life, state: State, size: Sizes) -> Cost:
    """Measured: a few steps of the model that would be trained, on random tokens."""
    from danlu import device, tasks
    from danlu.models.architecture import build
    from danlu.randomness import generator
    from danlu.train.plan import Request, resolve

    where = device.use(life.loaded.recipe.system)
    shape, vocab, tokens = shape_of(life, state, size, where)
    train = state.node.config["train"]
    loader = Synthetic(shape.context, vocab, tokens)
    task = tasks.load("language_modeling")(Vocabulary(vocab))
    pretraining = state.node.stage == "pretrain"
    request = Request(task, train, loader, loader, pretraining, time.monotonic(), device=where, compile=False)  # type: ignore[arg-type]
    plan = resolve(request, build(shape, generator(0, "forecast")).train().to(where))
    weights = sum(p.numel() for p in build(shape, generator(0, "forecast")).parameters())
    return Cost(3 + plan.seconds, plan.memory_mb, weights * 16 / 1e6)


def shape_of(life: Life, state: State, size: "Sizes", where: str = "cpu") -> tuple[Any, int, int]:
    """(architecture, vocabulary, training tokens) of a training on a device that has not begun."""
    from danlu.train.size import architecture

    tokens, vocab = size.tokens(state)
    recipe, train = life.loaded.recipe, state.node.config["train"]
    first = recipe.training("pretrain") if state.node.name == "finetune" else train
    return architecture(recipe.model, first, vocab, tokens, where), vocab, tokens


class Vocabulary:
    """A processor of which only the size matters."""

    def __init__(self, size: int):
        self.vocab_size = size

    def token_bytes(self) -> list[int]:
        return [4] * self.vocab_size


class Synthetic:
    """A loader of random tokens in the shape of the real one."""

    def __init__(self, context: int, vocab: int, tokens: int):
        import torch

        from danlu.data.loader import WHOLE

        self.share = WHOLE
        self.context, self.vocab, self.predictions = context, vocab, tokens
        self.random = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return max(1, -(-self.predictions // self.context))

    padding = 0.0

    def train(self, step: int, micro: int, shape: Any) -> dict[str, Any]:
        import torch

        rows = self.share.of(shape.rows)
        size = (max(1, rows.stop - rows.start), self.context)
        ids = torch.randint(self.vocab, size, generator=self.random)
        positions = torch.arange(self.context).expand(size).contiguous()
        return {
            "input_ids": ids,
            "labels": ids.roll(-1, 1),
            "position_ids": positions,
            "segment_ids": torch.ones(size, dtype=torch.int64),
        }
