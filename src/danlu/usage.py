"""The command line's parser: argparse, speaking the language in force, its refusals as ours."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from danlu.errors import UserError
from danlu.messages import text

_SAID = {
    "required": r"the following arguments are required: (?P<names>.+)",
    "unrecognized": r"unrecognized arguments: (?P<names>.+)",
    "choice": r"argument (?P<name>.+?): invalid choice: (?P<found>'.*?') \(choose from (?P<valid>.+)\)",
    "value": r"argument (?P<name>.+?): invalid (?P<kind>\w+) value: (?P<found>.+)",
    "argument": r"argument (?P<name>.+?): expected (?:one|at least one) argument",
}

LEARN: list[tuple[str, dict[str, Any]]] = [  # the arguments of `danlu learn`
    ("lesson", {"nargs": "*", "metavar": "N|mirror"}),
    ("--start", {"action": "store_true"}),
    ("--check", {"nargs": "?", "const": "", "metavar": "FILE"}),
    ("--html", {"nargs": "?", "const": "danlu-learn", "metavar": "DIR"}),
]


class Formatter(argparse.HelpFormatter):
    """Its "usage:" in the language in force."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, text("usage.usage") if prefix is None else prefix)


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are UserError E118 and whose titles are translated."""

    def __init__(self, prog: str | None = None, *, add_help: bool = True, parents: Sequence[Any] = (), **settings: Any):
        super().__init__(prog, **settings | {"add_help": False, "formatter_class": Formatter})
        self._positionals.title, self._optionals.title = text("usage.positionals"), text("usage.options")
        if add_help:
            self.add_argument("-h", "--help", action="help", default=argparse.SUPPRESS, help=text("usage.help"))
        for parent in parents:  # after the titles are set: argparse joins groups of equal titles
            self._add_container_actions(parent)

    def error(self, message: str) -> NoReturn:
        """Raise E118 with argparse's complaint in our words."""
        raise UserError("E118", reason=_reason(message), evidence=self.format_usage().rstrip().splitlines())


def _reason(message: str) -> str:
    for key, pattern in _SAID.items():
        if match := re.fullmatch(pattern, message, re.DOTALL):
            return text(f"usage.said.{key}", **match.groupdict())
    return message


def serving(options: argparse.Namespace) -> Any:
    """[serve] of the recipe that was named, or its defaults; the environment's key and then the flags on top.

    Raises:
        UserError: E104, a flag's value cannot be.
    """
    from danlu.config import Serve
    from danlu.recipe import checked, load_recipe
    from danlu.runs import recipe_file

    recipe = recipe_file(options.model)
    table = load_recipe(recipe).recipe.serve.model_dump() if recipe else {}
    names = ("host", "port", "slots", "queue", "api_key")
    given = {"api_key": os.environ.get("DANLU_API_KEY") or None} | {name: getattr(options, name) for name in names
                                                                    if getattr(options, name) is not None}  # fmt: skip
    table |= {name: value for name, value in given.items() if value is not None}
    flags: dict[tuple[str, ...], str] = {(name,): f"--{name.replace('_', '-')}" for name in names}
    return checked(Serve, table, flags, Path(options.model))


def device(options: argparse.Namespace, model: str = "") -> str:
    """Where a model is used: as the flag says, or the recipe that was named, or on the GPU that is there.

    Raises:
        UserError: E127, it is not there.
    """
    from danlu.device import chosen
    from danlu.recipe import load_recipe
    from danlu.runs import recipe_file

    recipe = recipe_file(model or options.model)
    return chosen(options.device or (load_recipe(recipe).recipe.system.device if recipe else "auto"))


def prompt(given: str | None) -> str:
    """The text to continue: the argument, or all of standard input.

    Raises:
        UserError: E217, it is not UTF-8.
    """
    data = sys.stdin.buffer.read() if given is None else given.encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("E217", byte=error.start + 1) from error


def beside(given: str | None, name: str) -> Path:
    """Where a picture goes that is made of one that was given: next to its file, or here where it came as bytes."""
    stem = Path("picture") if given is None or given.startswith("data:") else Path(given).with_suffix("")
    return stem.with_name(f"{stem.name}-{name}.png")
