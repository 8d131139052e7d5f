"""What `fit` and `evaluate` were asked for, by the recipe's own names: the recipe's config checks it."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from danlu.config import LENGTHS, Data, Finetune, ModelSection, Recipe, System, Train, options
from danlu.errors import UserError
from danlu.messages import text
from danlu.recipe import checked

Asked = tuple[str, Mapping[str, Any]]  # a task, and the options that the model has
_SYSTEM = ("threads", "device", "compile", "partitions")
_TUNING = tuple(name for name in Finetune.model_fields if name not in {*Train.model_fields, *Data.model_fields})
_OURS = (
    "path",
    "data",
    "derive",
    "task",
    "max_answer",
    "deadline",
    "options",
    "test",
)  # said by the call itself, or not for a call


def homes(task: str) -> dict[str, str]:
    """{name of an argument: the section of a recipe that it stands in}; options of the task by their own names."""
    system = {name: "system" for name in System.model_fields if name in _SYSTEM}
    tuning = dict.fromkeys(_TUNING, "finetune")
    sections: list[tuple[str, type[BaseModel]]] = [("train", Train), ("data", Data)]
    own = {name: section for section, model in sections for name in model.model_fields}
    found = dict.fromkeys(options.stated(task), "options") | {"seed": "", "context": "model"} | system | tuning | own
    return {name: home for name, home in found.items() if name not in _OURS}


_LENGTH = (
    *LENGTHS,
    "lr",
    "schedule",
    "warmup",
    "dropout",
    "stop_early",
    "evaluate_every",
    "save_every",
    "select",
    "sample",
)
_READERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # call: sections that it reads, and what not of them
    "fit": (("", "model", "options", "train", "data", "finetune", "system"), ()),
    "lr_find": (("", "model", "options", "train", "data", "system"), _LENGTH),
    "show_batch": (("", "model", "options", "data"), ()),
    "evaluate": (("data", "system"), ("split", "valid", "compile")),
}


def accepted(call: str, task: str) -> dict[str, str]:
    """The arguments that a call reads, with the sections that they stand in."""
    sections, without = _READERS[call]
    return {name: home for name, home in homes(task).items() if home in sections and name not in without}


def recipe(call: str, task: Asked, base: Any, data: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
    """The recipe that a call means: `data` is how its rows are read, unless `given` says otherwise.

    Raises:
        UserError: E102-E106, all that is wrong with the arguments, together.
    """
    name_, chosen = task
    known = accepted(call, name_)
    _check_names(call, given, known)
    table: dict[str, Any] = {"task": name_, "model": {"base": str(base)}, "data": dict(data), "options": dict(chosen)}
    for name, value in given.items():
        home = table if not known[name] else table.setdefault(known[name], {})
        home[name] = str(value) if isinstance(value, Path) else value
    if "adapt" in table.get("finetune", {}) and table["finetune"].get("tune") is None:
        table["finetune"].pop("tune", None)
    where: dict[tuple[str, ...], str] = {}
    for name, value in given.items():
        where[(known[name], name) if known[name] else (name,)] = f"{call}({name}={value!r})"[:120]
    made = checked(Recipe, table, where, Path(f"{call}(...)"))
    _check_effect(call, made, given)
    return made


def _check_names(call: str, given: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Raise E102 for the first argument that the call does not read."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = text("recipe.did_you_mean", name=near[0]) if near else ""
            raise UserError("E102", where=f"{call}(...)", key=name, hint=hint, valid=", ".join(sorted(known)))


def _check_effect(call: str, made: Recipe, given: Mapping[str, Any]) -> None:
    """Raise E106 for an argument that nothing would read: a model that is fitted is tuned."""
    for name, why in made.training("finetune").idle():
        if name in given:
            raise UserError("E106", where=f"{call}(...)", key=name, reason=text("recipe.no_effect", key=name, why=why))


def without_tuning(made: Recipe) -> Recipe:
    """The recipe whose one training reads the data: `tune` and `adapt` are said of that one."""
    return made.model_copy(update={"finetune": None})


def with_context(made: Recipe, context: int) -> Recipe:
    """The recipe for rows of so many tokens: also of fewer than a recipe may ask for, where the model reads no more."""
    section = ModelSection(base=made.model.base).model_copy(update={"context": context})
    return made.model_copy(update={"model": section})
