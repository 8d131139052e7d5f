"""Models -> a table: each on held-out rows of the data, beside an n-gram model of the same tokens."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files

if TYPE_CHECKING:
    from danlu.graph import Context
    from danlu.model import Model

VERSION = 1
_ROWS = 16  # packed rows of an evaluation batch
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
    for role, model in models.items():
        if model.task.labelled == models["base"].task.labelled:
            figures[role] = measure(model, context.inputs["columns"], models["base"].task_name)
        context.progress(len(figures), steps, role)
    answers = {}
    if "tuning_columns" in context.inputs:
        able = {role: model for role, model in models.items() if model.task.labelled == models["tuned"].task.labelled}
        learned = models["tuned"].task_name
        answers = {role: measure(model, context.inputs["tuning_columns"], learned) for role, model in able.items()}
    table = {"schema": files.SCHEMA, "split": _split(context.inputs["columns"]), "models": figures, "answers": answers}
    files.write_json(context.out / "metrics.json", _finite(table))
    last = models.get("tuned") or models["base"]
    shown = samples(last, context.inputs["columns"], wanted.samples) if last.task.ahead else []
    files.write_json(context.out / "samples.json", shown)
    context.facts |= {"models": figures, "answers": answers}
    context.output_hash = files.sha256(context.out / "metrics.json")
    context.progress(1, 1)


def measure(model: "Model", encoded: Path, task: str) -> dict[str, float]:
    """A model's metrics over all held-out rows of an encode folder."""
    from danlu import tasks
    from danlu.data.columns import Columns
    from danlu.data.loader import Loader
    from danlu.train.loop import evaluate

    learned = tasks.load(task)(model.processor, model.task.labels, model.context)
    columns = Columns(encoded / "columns" / _split(encoded))
    return evaluate(
        learned, model.net, Loader(columns, model.context, long=learned.long, ahead=learned.ahead, seed=0), _ROWS
    )


def on_data(folder: Path, data: str, device: str = "cpu") -> dict[str, float]:
    """`danlu evaluate MODEL DATA`: a model's metrics on any data, read as a recipe would read them."""
    import tempfile

    from danlu.config import Data, ModelSection, Recipe, Split, System
    from danlu.data import labelled
    from danlu.graph import Life, Silent
    from danlu.model import Model
    from danlu.recipe import Loaded

    model = Model.from_pretrained(folder, device)
    with tempfile.TemporaryDirectory() as room:
        path = Path(data).resolve()
        whole: dict[str, Any] = {"split": Split(valid=0.0, test=0.0), "clean": ["normalize", "drop_empty"]}
        found = labelled.look(path) if model.judges else None
        rows = Data(path=[str(path)], **whole, **(found.keys if found else {}))
        base = ModelSection(base=str(folder.resolve()), context=model.context)
        sections: dict[str, Any] = {"data": rows, "model": base, "system": System(runs=room)}
        for task in dict.fromkeys([model.task_name, "language_modeling"]):  # rows without an answer are plain text
            life = Life(Loaded(Recipe(task=task, **sections), Path(room) / "recipe.toml"))
            prepared = life.run(Silent(), "prepare").folders["prepare"]
            if model.judges or task == "language_modeling" or _answers(prepared):
                break
        return measure(model, life.run(Silent(), "encode").folders["encode"], task)


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
    """The simple model that stands beside: n-grams of the tokens, as they follow each other or as a bag."""
    columns = context.inputs["columns"]
    if model.task.labelled:
        return {"bag": bag(columns, len(model.task.labels))}
    if not model.task.ahead:
        return {}
    return {f"{order}-gram": {"bits_per_byte": baseline(columns, order)}}


def bag(encoded: Path, classes: int) -> dict[str, float]:
    """Metrics of logistic regression on a bag of the training rows' 1-grams and 2-grams."""
    import numpy as np
    import torch

    from danlu.metrics.bag import Bag
    from danlu.metrics.classification import confusion, summary
    from danlu.modalities.text import Text

    (rows, labels), (held_out, truth) = (_labelled(encoded, split) for split in ("train", _split(encoded)))
    found = Bag(rows, labels, classes, Text.load(encoded).vocab_size).predict(held_out)
    matrix = confusion(torch.from_numpy(truth), torch.from_numpy(np.asarray(found)), classes)
    return summary(matrix.numpy())


def _labelled(encoded: Path, split: str) -> tuple[list[Any], Any]:
    """The token ids of each row and its class (N,)."""
    from itertools import pairwise

    import numpy as np

    from danlu.data.columns import Columns

    columns = Columns(encoded / "columns" / split)
    tokens, bounds = columns.flat("input_ids"), columns.offsets("input_ids")[:]
    rows = [np.asarray(tokens[start:stop], np.int64) for start, stop in pairwise(bounds)]
    return rows, np.asarray(columns.flat("labels")[:], np.int64)[bounds[:-1]]


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
