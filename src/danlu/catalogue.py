"""Which tasks, families of models and shapes of rows there are and what each states, without importing its file."""

import ast
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_TASKS, _MODELS, _SHAPES = (Path(__file__).parent / folder for folder in ("tasks", "models", "data/shapes"))
_FAMILY = re.compile(r"^LAYOUT\b", re.MULTILINE)  # what every family states, and no other file beside them
_FORM = re.compile(r"^SUITS\b", re.MULTILINE)
_ALIAS = re.compile(r'^ALIAS = "(\w+)"', re.MULTILINE)


def names() -> dict[str, str]:
    """{name: first line of its documentation} of the tasks."""
    paths = sorted(path for path in _TASKS.glob("*.py") if path.stem not in ("__init__", "task"))
    return {path.stem: _title(path) for path in paths}


def stated(name: str, attribute: str) -> Any:
    """The value that a task's class gives to an attribute; None where it gives none, or there is no such task."""
    if name not in names():
        return None
    return _of_class(_TASKS / f"{name}.py", attribute)


def task_of(stock: Sequence[str]) -> str | None:
    """The task that a class of another library does ("BertForSequenceClassification"), the first that is known."""
    ends = {end: name for name in names() for end in stated(name, "stock") or ()}
    return next((task for each in stock for end, task in ends.items() if each.endswith(end)), None)


def shapes() -> tuple[str, ...]:
    """The shapes of a row."""
    return tuple(sorted(path.stem for path in _SHAPES.glob("*.py") if path.stem not in ("__init__", "value")))


# --- families of models -----------------------------------------------------------------------------------


def families() -> dict[str, str]:
    """{name: first line of its documentation} of the families of models."""
    return {name: _title(_MODELS / f"{name}.py") for name in _sources()}


def family_names() -> tuple[str, ...]:
    """The same without their documentation, which takes longer."""
    return tuple(_sources())


def aliases() -> dict[str, str]:
    """{alias: name} of the families that have one."""
    return {found[1]: name for name, source in _sources().items() if (found := _ALIAS.search(source))}


def forms() -> tuple[str, ...]:
    """What a recipe can call the form of a new network: families that say what they SUIT, by every name they have."""
    own = [name for name, source in _sources().items() if _FORM.search(source)]
    return tuple(sorted([*own, *(alias for alias, name in aliases().items() if name in own)]))


def of_family(name: str | None, attribute: str) -> Any:
    """The value that a family's file states, by the family's name or alias; None where it states none, or is none."""
    name = aliases().get(name or "", name)
    body = _parsed(_MODELS / f"{name}.py").body if name in _sources() else ()
    return _value(body, attribute, _taken(body))


@cache
def _sources() -> dict[str, str]:
    """The text of each family's file, by its name."""
    texts = {path.stem: path.read_text("utf-8") for path in sorted(_MODELS.glob("*.py"))}
    return {name: text for name, text in texts.items() if _FAMILY.search(text)}


# --- files ------------------------------------------------------------------------------------------------


def _title(path: Path) -> str:
    return (ast.get_docstring(_parsed(path)) or "").split("\n")[0]


def _of_class(path: Path, attribute: str) -> Any:
    """What the classes of a file state, one of them, or else the classes of tasks that they are made of."""
    parts = _parsed(path).body
    kinds, taken = [part for part in parts if isinstance(part, ast.ClassDef)], _taken(parts)
    own = _value([each for kind in kinds for each in kind.body], attribute, taken)
    bases = (name for kind in kinds for base in kind.bases if (name := ast.unparse(base)) in taken)
    above = (taken[name] for name in bases if taken[name].startswith("danlu.tasks."))
    found = (_of_class(_path(module), attribute) for module in above) if own is None else iter([own])
    return next((each for each in found if each is not None), None)


def _taken(body: Sequence[ast.stmt]) -> dict[str, str]:
    """The names that a file takes from others, and from where."""
    return {name.name: str(each.module) for each in body if isinstance(each, ast.ImportFrom) for name in each.names}


def _path(module: str) -> Path:
    return Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")


def _value(body: Sequence[ast.stmt], attribute: str, taken: Mapping[str, str]) -> Any:
    assigned = [each for each in body if isinstance(each, ast.Assign)]
    values = [each.value for each in assigned if attribute in map(ast.unparse, each.targets)]
    return _read(values[0], taken) if values else None


def _read(node: ast.expr, taken: Mapping[str, str]) -> Any:
    """What stands there, once `**Other.attribute` is what that class or file states, which was taken from elsewhere."""
    if not isinstance(node, ast.Dict):
        return ast.literal_eval(node)
    made = dict[Any, Any]()
    for key, value in zip(node.keys, node.values, strict=True):
        made |= {ast.literal_eval(key): ast.literal_eval(value)} if key else _elsewhere(value, taken)
    return made


def _elsewhere(node: ast.expr, taken: Mapping[str, str]) -> Any:
    owner, attribute = ast.unparse(node).split(".")
    file = _path(f"{taken[owner]}.{owner}")
    body = _parsed(file).body if file.exists() else []
    return _value(body, attribute, _taken(body)) if body else _of_class(_path(taken[owner]), attribute)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))
