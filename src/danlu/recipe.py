"""Read a recipe: TOML plus key=value, strict, with every fault found at once and placed at file:line:column."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from danlu import hub
from danlu.config import LENGTHS, Recipe, Train, options
from danlu.errors import UserError, raise_all
from danlu.messages import text
from danlu.messages.reasons import because, syntax

PATHS = (
    *(("data", name) for name in ("path", "valid", "test")),
    *(("finetune", name) for name in ("data", "valid", "test")),
    ("model", "base"),
    ("evaluate", "judge"),
    ("distill", "teacher"),
    ("system", "runs"),
)
Path_ = tuple[str, ...]
Checked = TypeVar("Checked", bound=BaseModel)


@dataclass(frozen=True)
class Loaded:
    """A recipe, where it was read from, and the folder that its relative paths start at."""

    recipe: Recipe
    path: Path

    @property
    def name(self) -> str:
        folder = self.path.resolve().parent
        return folder.name if self.path.name in ("recipe.toml", "danlu.toml") else self.path.stem

    @property
    def base(self) -> Path:
        return self.path.resolve().parent

    @property
    def runs(self) -> Path:
        return self.base / self.recipe.system.runs

    def model(self, path: str) -> Path:
        """The folder of a model that the recipe names: relative to it, or on a hub."""
        return hub.local(path) if hub.named(path) else self.base / path


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read `path` and apply `section.key=value` overrides.

    Raises:
        UserError: E101-E107, all faults of the recipe together.
    """
    path = Path(path)
    path = path / "recipe.toml" if path.is_dir() else path
    return Loaded(read(path, Recipe, overrides), path)


def read(path: Path, section: type[Checked], overrides: Sequence[str] = ()) -> Checked:
    """A TOML file as what `section` says it may hold.

    Raises:
        UserError: E101-E107, all its faults together.
    """
    raw, places = _open(path)
    for override in overrides:
        _apply(raw, places, override)
    return checked(section, raw, places, path)


def checked(section: type[Checked], table: Any, places: Mapping[Path_, str], path: Path) -> Checked:
    """A section of a table as it was written; `places` say where each of its keys stands, `path` where all of it does.

    Raises:
        UserError: E102-E106, all faults of the table together.
    """
    try:
        return section.model_validate(table)
    except ValidationError as error:
        raise_all(list(_problems(error, table, places, path)))
        raise


def _open(path: Path) -> tuple[dict[str, Any], dict[Path_, str]]:
    try:
        content = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("E101", path=path, reason=because(error)) from error
    try:
        return tomllib.loads(content), {key: f"{path}:{place}" for key, place in _places(content)}
    except tomllib.TOMLDecodeError as error:
        raise _misread(path, content, str(error)) from error


def _misread(path: Path, content: str, said: str) -> UserError:
    match = re.search(r"\(at line (\d+), column (\d+)\)", said)
    line, column = (int(match[1]), int(match[2])) if match else (len(content.splitlines()), 1)
    shown = content.splitlines()[line - 1 : line]
    return UserError("E107", where=f"{path}:{line}:{column}", evidence=shown, reason=syntax(said))


def _places(content: str) -> Iterator[tuple[Path_, str]]:
    """Each key of a TOML text with "line:column"; keys of inline tables included."""
    table: Path_ = ()
    for number, line in enumerate(content.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = tuple(part.strip(" \"'") for part in header[1].split("."))
            yield table, f"{number}:{line.index('[') + 1}"
        elif key := re.match(r"\s*([\w\-.\"']+)\s*=", line):
            outer = (*table, *(part.strip(" \"'") for part in key[1].split(".")))
            yield outer, f"{number}:{key.start(1) + 1}"
            for inner in re.finditer(r"[{,]\s*([\w\-]+)\s*=", line):
                yield (*outer, inner[1]), f"{number}:{inner.start(1) + 1}"


# --- key=value ---------------------------------------------------------------------------------------


def _apply(raw: dict[str, Any], places: dict[Path_, str], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise UserError("E105", found=override)
    path = tuple(key.strip().split("."))
    table = raw
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError("E105", found=override)
    replaced = [table, raw.get("pretrain") if path[0] == "train" else None]  # train.X also wins over [pretrain] X
    for section in (each for each in replaced if isinstance(each, dict)):
        for name in LENGTHS if path[-1] in LENGTHS else path[-1:]:  # a new length replaces the recipe's
            section.pop(name, None)
    table[path[-1]] = _value(value)
    places[path] = override


def _value(text_: str) -> Any:
    try:
        return tomllib.loads(f"value = {text_}")["value"]
    except tomllib.TOMLDecodeError:
        return text_


# --- faults ------------------------------------------------------------------------------------------


def _problems(error: ValidationError, raw: Any, places: Mapping[Path_, str], path: Path) -> Iterator[UserError]:
    """One UserError per faulty key: pydantic reports each branch of a union, we report the key."""
    grouped: dict[Path_, list[Any]] = {}
    for fault in error.errors(include_url=False):
        grouped.setdefault(_key(fault, raw), []).append(fault)
    for key, faults in grouped.items():
        yield _problem(key, faults, _place(key or _told(faults[0], places), places) or str(path), raw)


def _place(key: Path_, places: Mapping[Path_, str]) -> str:
    """Where a key stands, or else the section around it; "" where neither does."""
    return next((places[key[:n]] for n in range(len(key), 0, -1) if key[:n] in places), "")


def _told(fault: Any, places: Mapping[Path_, str]) -> Path_:
    """The first key of the recipe that a fault of several keys names; () where it names none."""
    named = re.findall(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*", str(fault.get("ctx", {}).get("error", "")))
    return next((key for key in (tuple(each.split(".")) for each in named) if key in places), ())


def _key(fault: Any, raw: Any) -> Path_:
    """The part of pydantic's location that is a path in the recipe (union branches are not)."""
    key: Path_ = ()
    for part in fault["loc"]:
        if isinstance(raw, dict) and part in raw:
            raw = raw[part]
        elif fault["type"] != "missing" or part is not fault["loc"][-1]:
            break
        key = (*key, str(part))
    return key


def _problem(key: Path_, faults: list[Any], where: str, raw: Any) -> UserError:
    fault, name = faults[0], ".".join(key)
    if fault["type"] == "extra_forbidden":
        return _unknown(key, where, raw)
    if fault["type"] == "missing":
        return UserError("E103", where=where, key=name)
    expected = list(dict.fromkeys(_expected(each) for each in faults))
    if fault["type"] == "value_error" and not isinstance(fault["input"], (str, int, float)):
        return UserError("E106", where=where, key=name or "recipe", reason=str(fault["ctx"]["error"]))
    found = repr(fault["input"]) if not isinstance(fault["input"], dict) else "{...}"
    return UserError("E104", where=where, key=name, expected=text("recipe.or").join(expected), found=found)


def _expected(fault: Any) -> str:
    """What would have been right, in words."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return str(context["expected"]).replace(" or ", text("recipe.or"))
    key = f"recipe.expected.{kind}"
    try:
        return text(key, **context)
    except KeyError:
        return str(fault["msg"])


def _unknown(key: Path_, where: str, raw: Any) -> UserError:
    valid = _options(key, raw) if key[-2:-1] == ("options",) else keys_of(key[:-1])
    if near := _nearest(key[-1], valid):
        hint = text("recipe.did_you_mean", name=near)
    else:
        homes = [".".join(known) for known in all_keys() if known[-1] == key[-1]]
        hint = text("recipe.belongs_to", name=homes[0]) if homes else ""
    return UserError("E102", where=where, key=".".join(key), hint=hint, valid=", ".join(valid) or "-")


def _options(key: Path_, raw: Any) -> list[str]:
    """The options of the task that stands beside them."""
    said = raw.get(key[0], {}) if len(key) > 2 else raw
    return list(options.stated(said.get("task", "instruction")))


def _nearest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most like `name`, of equals one with swapped letters; two letters need to share only one."""
    near = difflib.get_close_matches(name, valid, n=5, cutoff=0.6 if len(name) > 2 else 0.5)
    likeness = {each: difflib.SequenceMatcher(a=each, b=name).ratio() for each in near}
    return max(near, key=lambda each: (likeness[each], sorted(each) == sorted(name)), default=None)


# --- what there is -----------------------------------------------------------------------------------


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


def all_keys(section: type[BaseModel] = Recipe, prefix: Path_ = ()) -> Iterator[Path_]:
    """Every key that a recipe can hold, as a path."""
    for name, field in section.model_fields.items():
        yield (*prefix, name)
        if inner := _model_of(field.annotation):
            yield from all_keys(inner, (*prefix, name))


def keys_of(section: Path_) -> list[str]:
    """The keys valid directly inside a section."""
    return [key[-1] for key in all_keys() if key[:-1] == section]


# --- saving ------------------------------------------------------------------------------------------


def resolved(loaded: Loaded, folder: Path, pins: Mapping[Path_, Any] | None = None) -> str:
    """The complete recipe as TOML, to be saved in `folder`: every default written out, paths relative to it.

    `pins` are values that were measured ("auto", a budget) and stand in the place of what was written, so that the
    saved recipe runs to the same result anywhere. Secrets are left out.
    """
    recipe = loaded.recipe
    table = _plain(recipe)
    table.pop("train")
    table["serve"].pop("api_key", None)
    table.pop("pretrain")
    for stage in ("pretrain", "finetune") if recipe.trained == "pretrain" else ("finetune",):
        section = getattr(recipe, stage)
        if section is not None:
            own = {k: v for k, v in _plain(section).items() if k not in Train.model_fields}
            if stage == "finetune" == recipe.trained:  # on the rows of [data]
                own = {k: v for k, v in own.items() if k in section.model_fields_set}
            table[stage] = _read(recipe.training(stage)) | own
    if recipe.finetune is None and recipe.trained == "finetune":  # such a tuning reads [train]
        table["train"] = _read(recipe.training("finetune"))
    for (section, key), value in (pins or {}).items():
        home = table.setdefault(section if section in table else "train", {})
        for name in LENGTHS if key in LENGTHS else ():
            home.pop(name, None)
        home[key] = value
    if recipe.model.size:  # as what it says, beside which its name would say it twice
        table["model"] = _plain(recipe.backbone)
    if recipe.model.base:
        table["model"] = {k: v for k, v in table["model"].items() if k in ("base", "context")}
        table.pop("tokenizer")
    if table.get("finetune", {}).get("adapt") is not None:
        table["finetune"].pop("tune", None)
    for section, key in PATHS:
        if table.get(section, {}).get(key):
            table[section][key] = _moved(table[section][key], loaded.base, folder)
    return "# schema = 1: the complete recipe of this folder; it runs to the same result\n" + tomli_w.dumps(table)


def _read(train: Train) -> dict[str, Any]:
    """The settings that the training reads."""
    idle = dict(train.idle())
    return {name: value for name, value in _plain(train).items() if name not in idle}


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(exclude_none=True)


def _moved(value: Any, base: Path, folder: Path) -> Any:
    if isinstance(value, str) and hub.named(value):
        return value
    if isinstance(value, list):
        return [_moved(each, base, folder) for each in value]
    return Path(os.path.relpath(base / value, folder.resolve())).as_posix()
