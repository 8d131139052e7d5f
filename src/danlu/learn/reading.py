"""A lesson read in the terminal: it runs while it is read, part by part."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich import markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from danlu.learn import cells, lesson, source
from danlu.learn.cells import Run
from danlu.learn.lesson import Block, Cell, Exercise, Figure, Lesson, Prose
from danlu.learn.wrap import breaks
from danlu.messages import text

_WIDEST = 100  # columns; longer lines are hard to read


class _Paragraph(markdown.Paragraph):
    """A paragraph whose lines break between Chinese characters too."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.divide(list(breaks(self.text.plain, options.max_width))):
            line.rstrip()
            line.no_wrap = True
            yield line


class _Heading(markdown.Heading):
    """A heading at the left, in one weight."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield Text("")
        yield self.text
        if self.tag == "h1":
            yield Text("═" * min(self.text.cell_len, options.max_width))


class Page(markdown.Markdown):
    elements = markdown.Markdown.elements | {"paragraph_open": _Paragraph, "heading_open": _Heading}


class Reader:
    """Shows the blocks of a lesson as its cells run; `turn` waits for the reader between sections."""

    def __init__(self, read: Lesson, console: Console, *, wait: bool):
        self.lesson, self.console, self.wait = read, console, wait
        self.width = min(console.width, _WIDEST)
        self.blocks, self.sections, self.exercises = iter(read.blocks), 0, 0

    def read(self) -> None:
        run = cells.run(self.lesson.module, self._begun, self._ended)
        self._show(list(self.blocks), run)
        self._markdown(text("learn.after", number=self.lesson.number))

    def _begun(self, run: Run) -> None:
        """Everything up to the cell that starts now, and its code."""
        self._show(list(self._until(run.cell)), run)
        code = Syntax(self.lesson.code[run.cell], "python", theme="ansi_dark", background_color="default")
        self.console.print(Padding(code, (0, 0, 1, 4)), width=self.width)

    def _until(self, name: str) -> Iterator[Block]:
        for block in self.blocks:
            if block == Cell(name):
                return
            yield block

    def _ended(self, run: Run) -> None:
        if printed := run.printed[run.cell]:
            self.console.print(Padding(Text(printed, style="cyan"), (0, 0, 1, 4)))

    def _show(self, blocks: list[Block], run: Run) -> None:
        for block in blocks:
            if isinstance(block, Prose):
                self._prose(lesson.filled(block.text, run.values))
            elif isinstance(block, Figure):
                self.console.print(Padding(run.pictures[block.name].text(self.width - 4), (0, 0, 1, 2)))
                self._markdown(f"*{lesson.filled(block.caption, run.values)}*")
            elif isinstance(block, Exercise):
                self.exercises += 1
                self._markdown(f"**{self.exercises} · `{block.name}`** {block.task}")

    def _prose(self, page: str) -> None:
        self.sections += page.startswith("## ")
        if self.wait and page.startswith("## ") and self.sections > 1:
            self.console.print(Text(text("learn.go_on"), style="dim"), end="")
            sys.stdin.readline()
        self._markdown(source.link(page, lambda words, place: f"{words} (`{place}`)"))

    def _markdown(self, page: str) -> None:
        self.console.print(Page(page, code_theme="ansi_dark"), width=self.width)
        self.console.print()
