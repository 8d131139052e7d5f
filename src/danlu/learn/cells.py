"""What a lesson is written with. A lesson is a plain script: `cell("sum")` starts the part of it that is called "sum".

Run by itself (python -m danlu.learn.lessons.neuron) it only prints. Run by `run`, what every cell prints, draws and
computes is kept for the page around it.
"""

from __future__ import annotations

import io
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Protocol

from danlu.errors import UserError


class Picture(Protocol):
    """Something that can be drawn in a page and in a terminal."""

    def svg(self) -> str: ...
    def text(self, width: int) -> str: ...


Watch = Callable[["Run"], None]


@dataclass
class Run:
    """What a lesson has done so far."""

    begun: Watch  # called when a cell starts
    ended: Watch  # called when it has printed all it prints
    cell: str = ""  # the one that is running
    printed: dict[str, str] = field(default_factory=dict)  # cell -> what it printed
    pictures: dict[str, Picture] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)  # the lesson's variables
    heard: io.StringIO = field(default_factory=io.StringIO)
    out: Any = field(default_factory=lambda: sys.stdout)  # where the watchers print

    def turn(self, name: str) -> None:
        """End the cell that runs and start another; "" starts none."""
        with redirect_stdout(self.out):
            if self.cell:
                self.printed[self.cell] = self.heard.getvalue().rstrip("\n")
                self.ended(self)
            self.cell = name
            if name:
                self.begun(self)
        self.heard.seek(0)
        self.heard.truncate()


_running: list[Run] = []


def cell(name: str) -> None:
    """The lines from here to the next `cell` are shown, and what they print below them."""
    if _running:
        _running[-1].values = sys._getframe(1).f_globals
        _running[-1].turn(name)


def aside() -> None:
    """The lines from here to the next `cell` belong to this one, but are not shown: they only draw."""


def picture(name: str, drawn: Picture) -> None:
    """Keep a picture; the page shows it where it says ![caption](name)."""
    if _running:
        _running[-1].pictures[name] = drawn


def run(module: str, begun: Watch = lambda run: None, ended: Watch = lambda run: None) -> Run:
    """Run a lesson from its first cell to its last.

    Raises:
        UserError: E135, it needs a library that is not installed.
    """
    made = Run(begun, ended)
    try:
        with _listening(made):
            runpy.run_module(module)
            made.turn("")
    except ModuleNotFoundError as error:
        raise UserError("E135", name=error.name) from error
    return made


@contextmanager
def _listening(made: Run) -> Iterator[None]:
    _running.append(made)
    try:
        with redirect_stdout(made.heard):
            yield
    finally:
        _running.pop()
