"""The tiny twin of one training: all that decides what is computed is the recipe's, only the sizes are small."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu import adapt, device, files, models, tasks
from danlu.config import Begins, Train
from danlu.data.columns import Columns, ColumnWriter, token_dtype
from danlu.data.loader import Loader
from danlu.errors import UserError
from danlu.graph import Life
from danlu.life import Node
from danlu.messages import text
from danlu.model import Model
from danlu.models.architecture import Architecture, build
from danlu.nn.adversarial import AdversarialConfig
from danlu.nn.convolutions import ConvolutionsConfig
from danlu.nn.denoiser import DenoiserConfig
from danlu.nn.dropout import Dropout
from danlu.nn.network import Network
from danlu.nn.phrases import PhrasesConfig
from danlu.nn.queries import QueriesConfig
from danlu.nn.stems import CellsConfig, PatchesConfig
from danlu.proof.sample import Sample
from danlu.randomness import generator
from danlu.tasks.answers import teacher
from danlu.tasks.task import Example, Row, Task, longest_answer
from danlu.train import size
from danlu.train.plan import Request

WIDTH, LAYERS, HEADS, HIDDEN = 64, 2, 2, 128
QUERIES = 8  # of a decoder of boxes
CONTEXTS = (64, 128, 256, 512, 1024)
STEPS = 8
_HELD_OUT = 8  # every so many rows one is held out
_STIRRED = 0.02  # noise added to first weights, so that none (LoRA's) is zero and hides what depends on it


@dataclass(frozen=True)
class Twin:
    """One training made small."""

    stage: str
    task_name: str
    task: Task
    architecture: Architecture
    train: Train
    adapters: Sequence[Mapping[str, Any]]
    rows: list[Row]  # those that are trained on, in the order of the columns
    examples: list[Example]  # as the task made them
    folder: Path  # columns/{train,valid}
    seed: int
    device: str = "cpu"  # of its trainings and answers; float64 stays on the processor, which has it

    def columns(self, split: str = "train") -> Columns:
        return Columns(self.folder / "columns" / split)

    def loader(self, split: str = "train") -> Loader:
        return Loader(
            self.columns(split), self.task.processor.length(self.architecture.context), long=self.task.long,
            ahead=self.task.ahead, seed=self.seed,
        )  # fmt: skip

    def network(self) -> Network:
        """The network with its first weights and adapters, in fp32; the same each time."""
        made = build(self.architecture, generator(self.seed, "init"))
        return adapt.apply(made, self.adapters, self.seed).train()

    def exact(self, dtype: torch.dtype = torch.float64) -> Network:
        """The network without dropout and with no weight at zero, for comparisons of gradients and outputs."""
        made, noise = self.network(), generator(self.seed, "proof")
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=_STIRRED)
        for module in made.modules():
            if isinstance(module, Dropout):
                module.p = 0.0
        return made.to(dtype)

    def request(self) -> Request:
        """What the real session trains on."""
        held_out = self.loader("valid")
        short = self.train.model_copy(update=_short(self.train, self.architecture.context))
        watched = held_out if len(held_out) else None
        begins: Begins = "random" if self.stage == "pretrain" else "trained"
        return Request(self.task, short, self.loader(), watched, begins, time.monotonic(), device=self.device)

    def __str__(self) -> str:
        core, train = self.architecture.core, self.train
        form, vocab = models.carrier(self.architecture) or "danlu", self.task.processor.vocab_size
        sizes = f"{form} {core.layers}×{core.dim}, T {self.architecture.context}, V {vocab}"
        habits = ", ".join([train.optimizer, train.schedule, *(entry["kind"] for entry in self.adapters)])
        return f"{self.task_name} · {sizes} · {habits} · {text('proof.rows', count=len(self.rows))}"


def _short(train: Train, context: int) -> dict[str, Any]:
    """A life of a few steps in which everything happens: micro-batches, evaluations, checkpoints, dropout."""
    lengths = {"budget": None, "tokens": None, "epochs": None, "steps": STEPS}
    pace = {"batch_tokens": 4 * context, "accumulate": 2, "evaluate_every": 3, "save_every": 2}
    ends = {"stop_early": None, "deadline": None, "sample": None}
    return lengths | pace | ends | ({"dropout": 0.1} if train.dropout == "auto" else {})


def twins(life: Life, folder: Path) -> list[Twin]:
    """A twin of every training of a life; `folder` takes their columns.

    Raises:
        UserError: E216 no rows, E122 none that fits the context, and whatever is wrong with data or base model.
    """
    sample = Sample(life)
    processor = sample.processor()
    return [_twin(node, sample, processor, folder) for node in life.nodes if node.stage in ("pretrain", "finetune")]


def _twin(node: Node, sample: Sample, processor: Any, folder: Path) -> Twin:
    encode = sample.nodes[node.inputs["columns"]]
    drawn = sample.rows(encode.inputs["rows"])
    task = _task(node.config, processor, drawn)
    if "teacher" in node.external:
        known = Model.from_pretrained(sample.life.loaded.model(node.external["teacher"]))
        task = teacher.beside(task, known, node.config["distill"])
    processor = task.processor
    rows, examples = _short_enough(task, drawn, encode.config.get("max_answer"))
    whole = _form(sample.life, processor)
    most = min(processor.length(node.config["context"]), whole.context)
    context = _context([len(example["input_ids"]) for example in examples], task.long, most)
    adapters = _shrunk_adapters(node.config.get("adapt") or adapt.short(node.config.get("tune", "full")))
    layers = max([LAYERS, *(entry.get("keep_last", 0) + 1 for entry in adapters)])
    architecture = task.shaped(_shrunk(whole, processor.vocab_size, context, layers))
    place = folder / node.name
    for split, chosen in (("train", _trained(examples)), ("valid", examples[::_HELD_OUT])):
        _write(place / "columns" / split, chosen, processor.vocab_size)
    where = device.chosen(sample.life.loaded.recipe.system.device)
    made = Twin(node.name, node.config["task"], task, architecture, node.config["train"], adapters, _trained(rows),
                _trained(examples), place, node.config["seed"], where)  # fmt: skip
    if not len(made.loader()):
        raise UserError("E122", rows=len(rows), context=context)
    return made


def _task(config: Mapping[str, Any], processor: Any, rows: Sequence[Row]) -> Task:
    """The task of a training, with the labels of the sample."""
    kind: Any = tasks.load(config["task"])
    options = config.get("options", {})
    carried = rows if kind.learns_labels(options) else []
    labels = sorted({each for row in carried for each in kind.labels_of(row)})
    numbers = [number for number in map(kind.number_of, rows) if number is not None]
    scale = {"scale": [float(np.mean(numbers)), float(np.std(numbers)) or 1.0]} if numbers else {}
    known = processor.with_control(kind.markers)
    return kind(known, labels, config["context"], options | scale)


def _short_enough(task: Task, rows: list[Row], limit: int | None) -> tuple[list[Row], list[Example]]:
    """The rows whose answers the recipe does not leave out for their length, and their columns.

    Raises:
        UserError: E216, there are none.
    """
    kept = [each for each in _encoded(task, rows) if not limit or longest_answer(each[1]) <= limit]
    if not kept:
        raise UserError("E216")
    return [row for row, _ in kept], [example for _, example in kept]


def _encoded(task: Task, rows: Sequence[Row]) -> Iterator[tuple[Row, Example]]:
    """All examples of rows, each with the row that was read last when it was made.

    Raises:
        UserError: E250, a row lacks a column that the task reads.
    """
    read: list[Row] = []
    try:
        for example in task.examples(read.append(row) or row for row in rows):  # type: ignore[func-returns-value]
            yield read[-1], example
    except KeyError as missing:
        found = ", ".join(name for name in read[-1] if name not in ("id", "source"))
        fields = {"column": missing.args[0], "task": type(task).__name__, "found": found}
        raise UserError("E250", where=read[-1]["source"], **fields) from missing


def _trained(rows: list[Any]) -> list[Any]:
    """All but the held-out ones; all where there is only one."""
    return [row for index, row in enumerate(rows) if index % _HELD_OUT] or rows


def _form(life: Life, processor: Any) -> Architecture:
    """The architecture that the recipe trains, at any depth."""
    recipe = life.loaded.recipe
    if recipe.model.base:
        config = files.read_json(life.loaded.model(recipe.model.base) / "config.json")
        carried = config.get("danlu", {}).get("carrier", config)
        whole: Architecture = models.by_model_type(carried.get("model_type", "")).from_hf(carried)
        return whole.seeing(processor.sizes)
    section = recipe.backbone
    depth = 12 if section.depth == "auto" else section.depth
    section = section.model_copy(update={"depth": depth, "context": processor.length(section.context)})
    return size.architecture(section, recipe.train, processor.vocab_size, 0, seen=processor.sizes)


def _shrunk(whole: Architecture, vocab: int, context: int, layers: int) -> Architecture:
    """The same form with other sizes; keys and values stay grouped where they were."""
    groups = 1 if whole.core.kv_heads < whole.core.heads else HEADS
    sizes: dict[str, Any] = {
        "dim": WIDTH,
        "heads": HEADS,
        "kv_heads": groups,
        "head_dim": WIDTH // HEADS,
        "hidden": HIDDEN,
    }
    if isinstance(whole.embed, CellsConfig):
        core = replace(whole.core, layers=layers, dim=WIDTH, hidden=HIDDEN)
        return replace(whole, core=core, embed=replace(whole.embed, vocab=vocab), context=context)
    if isinstance(whole.embed, PhrasesConfig):
        found = replace(whole.embed, vocab=vocab, width=WIDTH, channels=WIDTH // 4)
        return replace(whole, core=replace(whole.core, dim=found.dim), embed=found, context=context)
    if isinstance(whole.head, QueriesConfig):
        return _asked(whole, whole.head, layers, context)
    if isinstance(whole.embed, ConvolutionsConfig | DenoiserConfig | AdversarialConfig):
        small = replace(whole.embed, width=WIDTH // 8, depth=1)
        return replace(whole, core=replace(whole.core, dim=small.dim), embed=small, context=context)
    if isinstance(whole.embed, PatchesConfig):
        core = replace(whole.core, layers=layers, **(sizes if whole.core.heads else {"dim": WIDTH, "hidden": HIDDEN}))
        return replace(whole, core=core, context=context if whole.core.heads == 0 else whole.context)
    core = replace(whole.core, layers=layers, **sizes)
    places = context + whole.tokens.offset if whole.tokens.positions else 0
    scale = WIDTH**0.5 if whole.tokens.scale == whole.core.dim**0.5 else whole.tokens.scale
    embed = replace(whole.tokens, vocab=vocab, positions=places, scale=scale)
    if (side := whole.encoder) is None or not core.memory:
        return replace(whole, core=core, embed=embed, context=context)
    core, side = (
        replace(core, memory=WIDTH),
        replace(side, core=replace(side.core, layers=layers, **sizes), embed=embed),
    )
    head: Any = whole.head
    head = replace(head, scale=WIDTH**-0.5) if head.scale != 1.0 else head
    return replace(whole, core=core, embed=embed, context=context, encoder=side, head=head)


def _asked(whole: Architecture, head: QueriesConfig, layers: int, context: int) -> Architecture:
    """The same form whose decoder is asked little, and as wide as its convolutions end."""
    assert isinstance(whole.embed, ConvolutionsConfig)
    small = replace(whole.embed, width=WIDTH // 8, depth=1)
    dim, each = small.dim, small.dim // HEADS
    core = replace(
        whole.core, layers=layers, dim=dim, heads=HEADS, kv_heads=HEADS, head_dim=each, hidden=HIDDEN
    )  # fmt: skip
    few = replace(head, core=replace(core, memory=dim), queries=min(head.queries, QUERIES))
    return replace(whole, core=core, embed=small, head=few, context=context)


def _shrunk_adapters(adapters: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The recipe's, with at most the last two blocks kept."""
    return [dict(e) | ({"keep_last": min(e["keep_last"], 2)} if e.get("keep_last") else {}) for e in adapters]


def _context(lengths: Sequence[int], long: str, most: int) -> int:
    """The smallest context in which half of the rows fit, where longer ones would be dropped."""
    usual = [context for context in CONTEXTS if context < most] + [most]
    if long == "split":
        return usual[0]
    middle = sorted(lengths)[len(lengths) // 2]
    return next((context for context in usual if middle - 1 <= context), most)


def _write(folder: Path, examples: list[dict[str, Any]], vocab: int) -> None:
    """Columns as the encode stage writes them."""
    first = {name: np.asarray(value) for name, value in examples[0].items()}
    dtypes = {name: "uint8" if name.endswith("_mask") else value.dtype.name for name, value in first.items()}
    scalars = [name for name, value in first.items() if value.ndim == 0]
    shapes = {name: value.shape for name, value in first.items() if value.ndim > 1}
    writer = ColumnWriter(folder, dtypes | {"input_ids": token_dtype(vocab)}, scalars=scalars, shapes=shapes)
    for example in examples:
        writer.add(example)
    writer.close()
