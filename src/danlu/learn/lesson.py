"""A lesson: its code by cells, and its page in one language as a row of blocks.

A page is Markdown with three marks of its own, each alone on its line:

    <!-- cell: NAME -->        the code of that cell and what it prints
    ![caption](NAME)           the picture of that name
    <!-- exercise: NAME -->    up to the next mark or heading: a task; its quotation ("> ...") explains a wrong answer

`{{name:.3f}}` is the value of a variable of the lesson's code, `[words](source:nn.mlp.GatedMLP)` leads to the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from danlu import messages
from danlu.errors import UserError

FOLDER = Path(__file__).with_name("lessons")
NAMES = ("neuron", "loop", "cleaning", "tokenizer", "attention")
_MARK = re.compile(
    r"^(?:<!-- (?P<kind>cell|exercise): (?P<name>\w+) -->|!\[(?P<caption>.*)\]\((?P<picture>\w+)\))$", re.M
)
_CELL = re.compile(r'^(?:cell\("(\w+)"\)|(aside)\(\))\n', re.M)
_VALUE = re.compile(r"\{\{(.+?)\}\}")


@dataclass(frozen=True)
class Prose:
    text: str


@dataclass(frozen=True)
class Cell:
    name: str


@dataclass(frozen=True)
class Figure:
    name: str
    caption: str


@dataclass(frozen=True)
class Exercise:
    name: str
    task: str
    why: str  # said when the answer is wrong


Block = Prose | Cell | Figure | Exercise


@dataclass(frozen=True)
class Lesson:
    """Lesson `number` (1 is the first)."""

    number: int
    name: str

    @property
    def module(self) -> str:
        return f"danlu.learn.lessons.{self.name}"

    @property
    def page(self) -> str:
        """Its Markdown in the language in force."""
        return (FOLDER / f"{self.name}.{messages.language()}.md").read_text("utf-8")

    @property
    def title(self) -> str:
        return self.page.partition("\n")[0].removeprefix("# ")

    @property
    def lead(self) -> str:
        """The paragraph below the title: what is learned."""
        return self.page.split("\n\n")[1].replace("\n", " ")

    @property
    def blocks(self) -> list[Block]:
        return list(_blocks(self.page))

    @cached_property
    def code(self) -> dict[str, str]:
        """Cell -> the lines that are shown."""
        parts = _CELL.split((FOLDER / f"{self.name}.py").read_text("utf-8"))[1:]  # name, aside, lines, name, ...
        return {name: lines.strip("\n") for name, lines in zip(parts[::3], parts[2::3], strict=True) if name}

    @property
    def exercises(self) -> list[Exercise]:
        return [block for block in self.blocks if isinstance(block, Exercise)]


def lessons() -> list[Lesson]:
    return [Lesson(number, name) for number, name in enumerate(NAMES, 1)]


def find(wanted: str) -> Lesson:
    """The lesson of a number or a name.

    Raises:
        UserError: E130, there is none.
    """
    for lesson in lessons():
        if wanted in (str(lesson.number), lesson.name):
            return lesson
    raise UserError("E130", found=wanted, valid=", ".join(f"{each.number} {each.name}" for each in lessons()))


def filled(text: str, values: Mapping[str, Any]) -> str:
    """Prose with the values of the lesson's variables in it."""
    return _VALUE.sub(lambda found: ("{" + found[1] + "}").format_map(values), text)


def _blocks(page: str) -> Iterator[Block]:
    at, task = 0, ""
    for mark in _MARK.finditer(page):
        yield from _between(page[at : mark.start()], task)
        at, task = mark.end(), mark["name"] if mark["kind"] == "exercise" else ""
        if mark["kind"] == "cell":
            yield Cell(mark["name"])
        elif mark["picture"]:
            yield Figure(mark["picture"], mark["caption"])
    yield from _between(page[at:], task)


def _between(text: str, exercise: str) -> Iterator[Block]:
    """Prose; after the mark of an exercise, that exercise up to the next heading."""
    if exercise:
        task, heading, text = _cut(text)
        lines = task.strip().splitlines()
        why = " ".join(line[1:].strip() for line in lines if line.startswith(">"))
        yield Exercise(exercise, "\n".join(line for line in lines if not line.startswith(">")).strip(), why)
        text = heading + text
    if text.strip():
        yield Prose(text.strip())


def _cut(text: str) -> tuple[str, str, str]:
    found = re.search(r"^## ", text, re.M)
    return (text[: found.start()], found[0], text[found.end() :]) if found else (text, "", "")
