"""Which tasks there are and what each states of itself, read from its file without importing it."""

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "tasks"


def names() -> dict[str, str]:
    """{name: first line of its documentation}."""
    paths = sorted(path for path in _FOLDER.glob("*.py") if path.stem not in ("__init__", "task"))
    return {path.stem: (ast.get_docstring(_parsed(path)) or "").split("\n")[0] for path in paths}


def stated(name: str, attribute: str) -> Any:
    """The value that a task's class gives to an attribute; None where it gives none, or there is no such task."""
    if name not in names():
        return None
    bodies = [each.body for each in _parsed(_FOLDER / f"{name}.py").body if isinstance(each, ast.ClassDef)]
    given = [each for body in bodies for each in body if isinstance(each, ast.Assign)]
    values = [each.value for each in given if ast.unparse(each.targets[0]) == attribute]
    return ast.literal_eval(values[0]) if values else None


def task_of(stock: Sequence[str]) -> str | None:
    """The task that a class of another library does ("BertForSequenceClassification"), the first that is known."""
    ends = {end: name for name in names() for end in stated(name, "stock") or ()}
    return next((task for each in stock for end, task in ends.items() if each.endswith(end)), None)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))
