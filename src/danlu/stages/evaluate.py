"""Models -> a table: each on held-out rows of the data, beside an n-gram model of the same tokens."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files

if TYPE_CHECKING:
    from danlu.graph import Context
    from danlu.model import Model
    from danlu.tasks.task import Task

VERSION = 2
_ROWS = 16  # packed rows of an evaluation batch
_ERRORS = 20  # that are shown
_COUNTED = 20_000_000  # tokens that the n-gram model is counted on: its counts are held in memory


def run(context: "Context") -> None:
    """Write metrics.json and samples.json into context.out; the output hash is that of the metrics."""
    from danlu.model import Model

    device = context.use_machine()
    wanted = context.config["evaluate"]
    roles = [role for role in ("base", "tuned") if role in context.inputs]
    models = {role: Model.from_pretrained(context.inputs[role], device) for role in roles}
    steps = len(models) * 2 + bool(wanted.ngram)
    figures: dict[str, dict[str, float]] = {}
    if wanted.ngram:
        figures |= _baseline(context, models["base"], wanted.ngram)
        context.progress(1, steps)
    wholes: dict[str, Whole] = {}
    for role, model in models.items():
        if model.judges == models["base"].judges:
            wholes[role] = Whole(model, context.inputs["columns"], context.inputs.get("rows"))
            figures[role] = measure(model, context.inputs["columns"], models["base"].task) | wholes[role].scores
        context.progress(len(figures), steps, role)
    answers = {}
    if "tuning_columns" in context.inputs:
        for role, model in models.items():
            if model.judges == models["tuned"].judges:
                wholes[role] = Whole(model, context.inputs["tuning_columns"], context.inputs.get("tuning_rows"))
                found = measure(model, context.inputs["tuning_columns"], models["tuned"].task)
                answers[role] = found | wholes[role].scores
    last, whole = models.get("tuned") or models["base"], list(wholes.values())[-1]
    table = {"schema": files.SCHEMA, "split": _split(context.inputs["columns"]), "models": figures, "answers": answers}
    files.write_json(context.out / "metrics.json", _finite(table | {"each": whole.each}))
    files.write_json(context.out / "errors.json", whole.errors)
    shown = samples(last, context.inputs["columns"], wanted.samples) if last.task.ahead else []
    files.write_json(context.out / "samples.json", shown)
    context.facts |= {"models": figures, "answers": answers}
    context.output_hash = files.sha256(context.out / "metrics.json")
    context.progress(1, 1)


class Whole:
    """What a model that judges rows says of the held-out ones, as it would say it to anybody; else nothing."""

    def __init__(self, model: "Model", encoded: Path, prepared: Path | None):
        self.task = model.task
        self.rows = _held_out(prepared, _split(encoded)) if prepared and model.judges else []
        self.said = model.judge(self.rows) if self.rows else []

    @property
    def scores(self) -> dict[str, float]:
        return self.task.score(self.said, self.rows) if self.rows else {}

    @property
    def each(self) -> list[dict[str, Any]]:
        """The figures of each label."""
        return self.task.each(self.said, self.rows) if self.rows else []

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The worst errors, the worst first."""
        found = (self.task.error(said, row) for said, row in zip(self.said, self.rows, strict=True))
        return sorted((each for each in found if each), key=lambda each: -each["weight"])[:_ERRORS]


def _held_out(prepared: Path, split: str) -> list[dict[str, Any]]:
    from danlu.data import shapes, store

    return [shapes.loaded(row) for row in store.read(prepared / "rows", split)]


def measure(model: "Model", encoded: Path, task: "Task") -> dict[str, float]:
    """A model's metrics over all held-out rows of an encode folder, which were encoded for a task."""
    from danlu.data.columns import Columns
    from danlu.data.loader import Loader
    from danlu.train.loop import evaluate

    learned = type(task)(model.processor, model.task.labels, model.context, task.chosen)
    columns = Columns(encoded / "columns" / _split(encoded))
    return evaluate(
        learned, model.net, Loader(columns, model.context, long=learned.long, ahead=learned.ahead, seed=0), _ROWS
    )


def on_data(folder: Path, data: str, device: str = "cpu") -> dict[str, float]:
    """`danlu evaluate MODEL DATA`: a model's metrics on any data, read as a recipe would read them."""
    import tempfile

    from danlu import tasks
    from danlu.config import Data, ModelSection, Recipe, Split, System
    from danlu.data import starter
    from danlu.graph import Life, Silent
    from danlu.model import Model
    from danlu.recipe import Loaded

    model = Model.from_pretrained(folder, device)
    with tempfile.TemporaryDirectory() as room:
        path = Path(data).resolve()
        whole: dict[str, Any] = {"split": Split(valid=0.0, test=0.0), "clean": ["normalize", "drop_empty"]}
        rows = Data(path=[str(path)], **whole, **(starter.keys(path, model.task_name) if model.judges else {}))
        base = ModelSection(base=str(folder.resolve()), context=model.context)
        sections: dict[str, Any] = {"data": rows, "model": base, "system": System(runs=room)}
        for task in dict.fromkeys([model.task_name, "language_modeling"]):  # rows without an answer are plain text
            own = model.task.chosen if task == model.task_name else {}
            life = Life(Loaded(Recipe(task=task, options=own, **sections), Path(room) / "recipe.toml"))
            prepared = life.run(Silent(), "prepare").folders["prepare"]
            if model.judges or task == "language_modeling" or _answers(prepared):
                break
        encoded = life.run(Silent(), "encode").folders["encode"]
        learned = model.task if task == model.task_name else tasks.load(task)(model.processor)
        return measure(model, encoded, learned) | Whole(model, encoded, prepared).scores


def _answers(prepared: Path) -> bool:
    """Whether prepared rows hold answers to learn: chats or pairs."""
    from danlu.data import store

    row = next(iter(store.read(prepared / "rows", "train")))
    return bool(row.get("messages") or row.get("completion"))


def _split(encoded: Path) -> str:
    """The rows that figures are measured on: test, or valid or train where the recipe holds nothing out."""
    from danlu.data.columns import Columns

    return next(name for name in ("test", "valid", "train") if len(Columns(encoded / "columns" / name)))


def _baseline(context: "Context", model: "Model", order: int) -> dict[str, dict[str, float]]:
    """The simple model that stands beside: n-grams of the tokens, or what the task sets beside itself."""
    from danlu.data import shapes, store

    columns = context.inputs["columns"]
    if model.judges and "rows" in context.inputs:
        rows = context.inputs["rows"]
        learned = (shapes.loaded(row) for row in store.read(rows / "rows", "train"))
        return model.task.baseline(learned, _held_out(rows, _split(columns)))
    return {f"{order}-gram": {"bits_per_byte": baseline(columns, order)}} if model.task.ahead else {}


def baseline(encoded: Path, order: int) -> float:
    """Bits per byte of an n-gram model counted on the training rows, at most the first 20 million tokens of them."""
    import numpy as np

    from danlu.data.columns import Columns
    from danlu.metrics.ngram import NGram
    from danlu.modalities.text import Text

    processor = Text.load(encoded)
    train, held_out = Columns(encoded / "columns" / "train"), Columns(encoded / "columns" / _split(encoded))
    model = NGram(np.asarray(train.flat("input_ids")[:_COUNTED]), processor.vocab_size, order)
    tokens = np.asarray(held_out.flat("input_ids")[:])
    predicted = np.ones(len(tokens), dtype=bool)
    predicted[held_out.offsets("input_ids")[:][:-1]] = False  # the token that opens a row is given, not predicted
    return model.bits_per_byte(tokens, predicted, np.array(processor.token_bytes()))


def samples(model: "Model", encoded: Path, number: int) -> list[dict[str, str]]:
    """Continuations of held-out rows, as they come."""
    from dataclasses import replace

    from danlu.data.columns import Columns

    columns = Columns(encoded / "columns" / _split(encoded))
    found = []
    for index in range(min(number, len(columns))):
        ids = [int(i) for i in columns.row(index)["input_ids"][: 1 + min(48, model.context // 2)]]
        prompt = model.processor.decode(ids)
        found.append(
            {
                "prompt": prompt,
                "text": model.predict(prompt, replace(model.usual, max_tokens=96)),
            }
        )
    return found


def _finite(value: Any) -> Any:
    """JSON knows no NaN: a figure that is none is null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
