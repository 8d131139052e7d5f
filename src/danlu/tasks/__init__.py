"""Tasks by name: the file's name is the task's name, and its class is that name in CamelCase."""

import importlib

from danlu.catalogue import names
from danlu.errors import UserError

__all__ = ["check", "load", "names"]


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
