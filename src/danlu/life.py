"""The life of a model: the stages of a recipe, in order, and all that each of them reads."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from danlu import catalogue
from danlu.config import WORDLESS, Data, Recipe
from danlu.errors import UserError


@dataclass(frozen=True)
class Node:
    """One stage of one life: `config` is all of the recipe that it reads."""

    name: str
    stage: str
    config: Any
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> node name
    raw: tuple[str, ...] = ()  # paths as the recipe writes them
    external: Mapping[str, str] = field(default_factory=dict)  # role -> model folder as the recipe writes it

    @property
    def module(self) -> Any:
        return importlib.import_module(f"danlu.stages.{self.stage}")

    @contextmanager
    def keys(self) -> Iterator[None]:
        """What is wrong with rows to tune on is said with the keys of [finetune], where these are read."""
        try:
            yield
        except UserError as problem:
            if self.name.endswith("_finetune"):
                problem.speak_of("finetune")
            raise


def life(recipe: Recipe) -> list[Node]:
    """The stages of a recipe, in order."""
    base = {"base": recipe.model.base} if recipe.model.base else {}
    trained = recipe.trained
    tune = recipe.finetune if trained != "finetune" else None
    answers = {"max_answer": recipe.finetune.max_answer} if recipe.finetune and not tune else {}
    nodes = [  # all data first: a bad row is found before hours of training
        Node("prepare", "prepare", _reading(recipe.data, recipe.task), raw=recipe.data.paths()),
        Node(
            "encode",
            "encode",
            _encoding(recipe, recipe.task, recipe.options) | answers,
            {"rows": "prepare"},
            external=base,
        ),
    ]
    if tune:
        inputs = {"rows": "prepare_finetune", "tokenizer": "encode"}
        encoding = _encoding(recipe, tune.task, tune.options) | {"max_answer": tune.max_answer}
        nodes += [_tuning_rows(recipe), Node("encode_finetune", "encode", encoding, inputs)]
    taught = {"teacher": recipe.distill.teacher} if recipe.distill else {}
    learning = _training(recipe, trained, recipe) | ({"distill": recipe.distill} if recipe.distill else {})
    nodes.append(Node(trained, trained, learning, {"columns": "encode"}, external=base | taught))
    models, columns = {"base": trained}, {"columns": "encode"}
    if tune:
        inputs = {"columns": "encode_finetune", "base": trained}
        nodes.append(Node("finetune", "finetune", _training(recipe, "finetune", tune), inputs))
        models, columns = models | {"tuned": "finetune"}, columns | {"tuning_columns": "encode_finetune"}
    judge = {"judge": recipe.evaluate.judge} if recipe.evaluate.judge else {}
    inputs = models | columns | _judged(recipe)
    nodes.append(Node("evaluate", "evaluate", {"evaluate": recipe.evaluate}, inputs, external=judge))
    if recipe.compress:
        nodes.append(Node("compress", "compress", {"compress": recipe.compress}, {"model": nodes[-2].name} | columns))
    return nodes


def _judged(recipe: Recipe) -> dict[str, str]:
    """The rows whose whole answers are measured, where a task gives such."""
    rows = {"rows": "prepare"} if catalogue.stated(recipe.task, "judges") else {}
    tuned = recipe.finetune and catalogue.stated(recipe.finetune.task, "judges")
    return rows | ({"tuning_rows": "prepare_finetune"} if tuned else {})


def _encoding(recipe: Recipe, task: str, options: dict[str, Any]) -> dict[str, Any]:
    if catalogue.stated(task, "shape") in WORDLESS:
        read = catalogue.stated(task, "encoded_by")  # of the options; all, where a task does not say
        return {"task": task} | _own({n: each for n, each in options.items() if read is None or n in read})
    wanted = recipe.tokenizer.type
    usual = catalogue.of_family(recipe.backbone.arch, "TOKENIZER") or "bpe"
    kind = usual if wanted == "auto" else wanted
    encoding = {"tokenizer": recipe.tokenizer.model_copy(update={"type": kind}), "task": task} | _own(options)
    fitted = catalogue.stated(task, "long") in ("cut", "windows") or catalogue.stated(task, "sized")
    return encoding | ({"context": recipe.model.context} if fitted else {})


def _training(recipe: Recipe, stage: Any, said: Any) -> dict[str, Any]:
    """What a training reads; `said` is where its task and the options of that stand."""
    config = {"task": said.task, "seed": recipe.seed, "train": recipe.training(stage), "context": recipe.model.context}
    config |= _own(said.options)
    if stage == "pretrain":
        return config | {"model": recipe.backbone}
    tune = recipe.finetune
    return config | ({name: getattr(tune, name) for name in ("tune", "adapt", "keep_adapters")} if tune else {})


def _own(options: dict[str, Any]) -> dict[str, Any]:
    return {"options": options} if options else {}


def _tuning_rows(recipe: Recipe) -> Node:
    tune = recipe.finetune
    assert tune is not None
    if tune.derive:
        return Node("prepare_finetune", "prepare", {"derive": tune.derive}, {"rows": "prepare"})
    if not tune.data:
        raise UserError("E108")
    reading = _reading(recipe.reading(), tune.task)
    return Node("prepare_finetune", "prepare", reading, raw=reading.paths())


def _reading(data: Data, task: str) -> Data:
    """How rows are read: as the recipe says, else in the shape that the task needs."""
    needed = catalogue.stated(task, "shape")
    return data.model_copy(update={"shape": needed}) if needed and data.shape == "auto" else data
