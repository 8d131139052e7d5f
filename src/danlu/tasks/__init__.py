"""Tasks by name: the file's name is the task's name, and its class is that name in CamelCase."""

import ast
import importlib
from pathlib import Path

from danlu.errors import UserError

_NOT_TASKS = ("__init__", "task")


def names() -> dict[str, str]:
    """{name: first line of its documentation}, read without importing any task."""
    paths = sorted(path for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_TASKS)
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0] for path in paths}


def check(name: str) -> None:
    """Raise UserError E111 where there is no task of that name."""
    if name not in names():
        raise UserError("E111", found=name, valid=", ".join(names()))


def load(name: str) -> type:
    """The task's class.

    Raises:
        UserError: E111, there is no task of that name.
    """
    check(name)
    module = importlib.import_module(f"danlu.tasks.{name}")
    return getattr(module, "".join(part.capitalize() for part in name.split("_")))
