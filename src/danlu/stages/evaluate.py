"""Models -> a table: each on held-out rows of the data, beside an n-gram model of the same tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files, pixels
from danlu.errors import UserError

if TYPE_CHECKING:
    from danlu.data.loader import Loader
    from danlu.graph import Context
    from danlu.life import Node
    from danlu.metrics.bootstrap import Sample
    from danlu.model import Model
    from danlu.recipe import Loaded
    from danlu.tasks.task import Row, Task

VERSION = 4
_PICTURES, _NUMBERS = 128, 2**21  # of a batch, at most: what takes one place but is large, and its numbers
_TOKENS = 4096  # of an evaluation batch, if one packed row is not more
_FLIPS = 20  # that are shown
_COUNTED = 20_000_000  # tokens that the n-gram model is counted on: its counts are held in memory
_ORDER, _BAG = 5, 2  # of the n-grams that stand beside where the recipe does not say: in a row, and in a bag


def run(context: "Context") -> None:
    """Write metrics.json and what the report shows into context.out; the output hash is that of the metrics."""
    from danlu.model import Model

    device, wanted = context.use_machine(), context.config["evaluate"]
    roles = [role for role in ("base", "tuned") if role in context.inputs]
    models: dict[str, Model] = {role: Model.from_pretrained(context.inputs[role], device) for role in roles}
    steps = len(models) * 2 + bool(wanted.ngram)
    groups = [Group(context.inputs["columns"], context.inputs.get("rows"), models["base"])]
    if wanted.ngram:
        groups[0].beside(wanted.ngram)
        context.progress(1, steps)
    if "tuning_columns" in context.inputs:
        groups.append(Group(context.inputs["tuning_columns"], context.inputs.get("tuning_rows"), models["tuned"]))
        if wanted.ngram and groups[1].rows:
            groups[1].beside(wanted.ngram)
    for group in groups:
        for role, model in models.items():
            group.add(role, model)
            context.progress(sum(len(each.figures) for each in groups), steps, role)
    spread = {role: _made(context, role, model, groups[0]) for role, model in models.items() if model.task.makes}
    _write(context.out, groups, spread, wanted.worst)
    last = models.get("tuned") or models["base"]
    shown = samples(last, context.inputs["columns"], wanted.samples) if last.task.ahead else []
    files.write_json(context.out / "samples.json", shown or groups[-1].samples(wanted.samples))
    context.facts |= {"models": groups[0].figures, "answers": groups[1].figures if groups[1:] else {}}
    context.output_hash = files.sha256(context.out / "metrics.json")
    context.progress(1, 1)


def look(node: "Node", loaded: "Loaded", paths: "Sequence[Path]") -> None:
    """Look at the judge of pictures before anything is learned; E624, it does not tell their classes apart."""
    from danlu import folder

    for judge in map(loaded.model, node.external.values()):
        folder.check(judge)
        if (task := folder.task_of(judge)) != "image_classification":
            raise UserError("E624", path=judge, task=task)


def _made(context: "Context", role: str, model: "Model", group: "Group") -> dict[str, Any]:
    """Figures of what a model makes, a sheet of it in samples.png, and how often a class is: {who: {label: share}}."""
    from danlu.model import Model
    from danlu.tasks.answers import jury

    judge = Model.from_pretrained(path, str(model.net.device)) if (path := context.inputs.get("judge")) else None
    found = jury.heard(model, judge, group.encoded / "columns", _split(group.encoded))
    group.figures[role] |= found.figures[jury.MADE]
    group.figures[jury.REAL] = found.figures[jury.REAL]
    files.write_bytes(context.out / "samples.png", found.sheet)
    return found.spread


def _write(out: Path, groups: "list[Group]", spread: dict[str, Any], worst: int) -> None:
    """metrics.json, and beside it rows that the models got wrong, and rows that one got right and another wrong."""
    named = dict(zip(("models", "answers"), groups, strict=False))
    table: dict[str, Any] = {"schema": files.SCHEMA, "split": _split(groups[0].encoded), "models": {}, "answers": {}}
    table |= {name: group.figures for name, group in named.items()}
    table["intervals"] = {name: group.intervals for name, group in named.items()}
    table |= {"each": groups[-1].each, "confusion": groups[-1].confusion}
    table |= {"classes": spread} if spread else {}
    compared = [group.compared() for group in groups]
    table["comparisons"] = [comparison for each in compared for comparison, _ in each]
    files.write_json(out / "metrics.json", _finite(table))
    files.write_json(out / "errors.json", pixels.shrunk(groups[-1].errors[:worst]))
    files.write_json(out / "flips.json", [flips for each in compared for _, flips in each])


@dataclass(frozen=True)
class Judged:
    """What a model says of rows: its answers, in their order, and all that they amount to."""

    task: "Task"
    rows: Sequence["Row"]
    said: Sequence["Row"]

    @cached_property
    def sample(self) -> "Sample | None":
        return self.task.sample(self.said, self.rows) if self.rows else None

    @property
    def scores(self) -> dict[str, float]:
        return self.task.score(self.said, self.rows) if self.rows else {}

    @cached_property
    def _ends(self) -> "dict[str, Any]":
        return self.sample.intervals() if self.sample else {}

    @property
    def intervals(self) -> dict[str, list[float]]:
        """Between what ends each figure lies, 19 times of 20."""
        return {name: ends.tolist() for name, ends in self._ends.items() if ends.ndim == 1}

    @property
    def each(self) -> list[dict[str, Any]]:
        """The figures of each label, and between what ends its F1 lies."""
        found = self.task.each(self.said, self.rows) if self.rows else []
        ends = self._ends.get("f1")
        if ends is None or ends.ndim == 1 or ends.shape[1] != len(found):
            return found
        return [row | {"f1_low": low, "f1_high": high} for row, low, high in zip(found, *ends.tolist(), strict=True)]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What was wrong, the worst first."""
        found = (self.task.error(said, row) for said, row in zip(self.said, self.rows, strict=True))
        return sorted((each for each in found if each), key=lambda each: -each["weight"])

    @property
    def right(self) -> list[bool]:
        """Which answers are right; empty where none can be said to be."""
        found = [self.task.right(said, row) for said, row in zip(self.said, self.rows, strict=True)]
        return [bool(each) for each in found] if None not in found else []


class Group:
    """Models on the same held-out rows of an encode folder, which `model` learned to answer, and figures of them."""

    def __init__(self, encoded: Path, prepared: Path | None, model: "Model"):
        self.encoded, self.prepared, self.model = encoded, prepared, model
        self.rows = _held_out(prepared, _split(encoded), model.task) if prepared and model.judges else []
        self.figures: dict[str, dict[str, float]] = {}
        self.judged: dict[str, Judged] = {}

    def add(self, role: str, model: "Model") -> None:
        """Measure a model, where it answers as the one does that the rows are for."""
        if model.judges == self.model.judges and model.task.outputs.keys() == self.model.task.outputs.keys():
            self.figures[role] = measure(model, self.encoded, self.model.task)
            self._answered(role, Judged(model.task, self.rows, judged(model, self.rows)))

    def beside(self, order: int | str) -> None:
        """Add a simple model: n-grams of the tokens, or what the task sets beside itself."""
        from danlu.data import shapes, store

        if self.rows and self.prepared:
            train = (shapes.loaded(row) for row in store.read(self.prepared / "rows", "train"))
            made = self.model.task.baseline(train, self.rows, _BAG if order == "auto" else int(order))
            for name, said in made.items():
                self._answered(name, Judged(self.model.task, self.rows, said))
            self.figures |= beside(self.model, self.encoded, _ORDER if order == "auto" else int(order))
        elif self.model.task.ahead:
            order = _ORDER if order == "auto" else int(order)
            self.figures[f"{order}-gram"] = {"bits_per_byte": baseline(self.encoded, order)}

    def _answered(self, role: str, said: Judged) -> None:
        self.figures[role] = self.figures.get(role, {}) | said.scores
        self.judged[role] = said

    @property
    def intervals(self) -> dict[str, dict[str, list[float]]]:
        return {role: each.intervals for role, each in self.judged.items() if each.intervals}

    @property
    def last(self) -> Judged | None:
        return list(self.judged.values())[-1] if self.judged else None

    @property
    def each(self) -> list[dict[str, Any]]:
        return self.last.each if self.last else []

    @property
    def errors(self) -> list[dict[str, Any]]:
        return self.last.errors if self.last else []

    @property
    def confusion(self) -> dict[str, Any]:
        """The true labels in rows, and how often each was answered; {} where rows do not have one label."""
        return self.last.task.confusion(self.last.said, self.last.rows) if self.last and self.last.rows else {}

    def compared(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Each model with the one before it: McNemar's test, and the rows that flipped."""
        roles = list(self.judged)
        return [made for pair in pairwise(roles) if (made := compared(*((role, self.judged[role]) for role in pair)))]

    def samples(self, number: int) -> list[dict[str, str]]:
        """The first held-out rows, answered."""
        if not self.last:
            return []
        answered = zip(self.last.rows[:number], self.last.said, strict=False)
        return [{"prompt": _plain(row) + "\n", "text": self.last.task.told(said)} for row, said in answered]


def judged_on(model: "Model", encoded: Path, prepared: Path) -> Judged:
    """What a model that judges rows says of the held-out ones; nothing where it does not judge."""
    rows = _held_out(prepared, _split(encoded), model.task) if model.judges else []
    return Judged(model.task, rows, judged(model, rows))


def judged(model: "Model", rows: Sequence["Row"]) -> list["Row"]:
    """What a model says of rows, as it would say it to anybody; without the score of every label, to keep it small."""
    return [{name: each for name, each in answer.items() if name != "scores"} for answer in model.measured(rows)]


def compared(first: tuple[str, Judged], second: tuple[str, Judged]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Two models on the same rows: McNemar's test, and the rows that flipped; None where these are not the same.

    Nor is there a test where no answer is simply right or wrong.
    """
    from danlu.metrics import mcnemar

    (one_name, one), (two_name, two) = first, second
    if not one.right or not two.right or list(one.rows) != list(two.rows):
        return None
    names = {"first": one_name, "second": two_name}
    test = mcnemar.compare(one.right, two.right)
    found = {**names, "only_first": test.first, "only_second": test.second, "exact": test.exact, "p": test.p}
    places = [place for place, (a, b) in enumerate(zip(one.right, two.right, strict=True)) if a != b]
    flips = [
        {"given": _plain(one.rows[place]), "wanted": one.task.told(one.rows[place]),
         "first": one.task.told(one.said[place]), "second": two.task.told(two.said[place]), "won": two.right[place]}
        for place in places
    ]  # fmt: skip
    shown = [each for won in (True, False) for each in [flip for flip in flips if flip["won"] == won][:_FLIPS]]
    return found | {"rows": len(one.right)}, {**names, "flips": shown}


def _plain(row: "Row") -> str:
    from danlu.data import shapes

    return shapes.plain(row)


def _held_out(prepared: Path, split: str, task: "Task") -> list[dict[str, Any]]:
    """The rows of a split, as the task asks them."""
    from danlu.data import shapes, store

    return [task.asked(shapes.loaded(row)) for row in islice(store.read(prepared / "rows", split), task.judged)]


def measure(model: "Model", encoded: Path, task: "Task") -> dict[str, float]:
    """A model's metrics over all held-out rows of an encode folder, which were encoded for a task."""
    from danlu.train.loop import evaluate

    learned = type(task)(model.processor, model.task.labels, model.context, task.chosen)
    loader = _loader(encoded, learned, model)
    return evaluate(learned, model.net, loader, _together(loader))


def beside(model: "Model", encoded: Path, order: int) -> dict[str, dict[str, float]]:
    """Figures of what a model's task sets beside it, of the tokens to train on, at most the first 20 million."""
    import numpy as np

    from danlu.data.columns import Columns

    tokens = np.asarray(Columns(encoded / "columns" / "train").flat("input_ids")[:_COUNTED])
    loader = _loader(encoded, model.task, model)
    return model.task.beside(tokens, loader.evaluation(_together(loader)), order)


def _loader(encoded: Path, task: "Task", model: "Model") -> "Loader":
    """The held-out rows, packed for a task."""
    from danlu.data.columns import Columns
    from danlu.data.loader import Loader

    columns = Columns(encoded / "columns" / _split(encoded))
    return Loader(columns, model.processor.length(model.context), long=task.long, ahead=task.ahead, seed=0)


def _together(loader: "Loader") -> int:
    """Packed rows of a batch."""
    rows = _TOKENS // loader.context
    if loader.whole:
        numbers = sum(math.prod(loader.columns.shape(name) or ()) for name in loader.whole)
        rows = min(rows, _PICTURES, _NUMBERS // numbers)
    return max(1, rows)


def on_data(folder: Path, data: str, device: str = "cpu") -> Group:
    """`danlu evaluate MODEL DATA`: a model's metrics on any data, read as a recipe would read them.

    The group holds it under the name of its folder.
    """
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
        seen = (starter.keys(path, model.task_name) or starter.taught(folder, path)) if model.judges else {}
        rows = Data(path=[str(path)], **{**seen, **whole})
        # a recipe's context is 16 at least; rows of tables and pictures may take fewer places
        base = ModelSection(base=str(folder.resolve()), context=max(16, model.context))
        sections: dict[str, Any] = {"data": rows, "model": base, "system": System(runs=room)}
        for task in dict.fromkeys([model.task_name, "language_modeling"]):  # rows without an answer are plain text
            known = model.task.chosen if task == model.task_name else {}
            own = {name: value for name, value in known.items() if name in model.task.options}
            life = Life(Loaded(Recipe(task=task, options=own, **sections), Path(room) / "recipe.toml"))
            prepared = life.run(Silent(), "prepare").folders["prepare"]
            if model.judges or task == "language_modeling" or _answers(prepared):
                break
        encoded = life.run(Silent(), "encode").folders["encode"]
        learned = model.task if task == model.task_name else tasks.load(task)(model.processor)
        group = Group(encoded, prepared if model.judges else None, model)
        if model.judges:
            group.add(folder.name, model)
        else:
            group.figures[folder.name] = measure(model, encoded, learned)
        return group


def _answers(prepared: Path) -> bool:
    """Whether prepared rows hold answers to learn: chats or pairs."""
    from danlu.data import store

    row = next(iter(store.read(prepared / "rows", "train")))
    return bool(row.get("messages") or row.get("completion"))


def _split(encoded: Path) -> str:
    """The rows that figures are measured on: test, or valid or train where the recipe holds nothing out."""
    from danlu.data.columns import Columns

    return next(name for name in ("test", "valid", "train") if len(Columns(encoded / "columns" / name)))


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
