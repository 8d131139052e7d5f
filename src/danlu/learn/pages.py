"""Lessons as HTML pages: each stands alone, asks nothing of the network and runs no script."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from danlu import files
from danlu import page as standing
from danlu.learn import cells, drawing, lesson, source
from danlu.learn.cells import Run
from danlu.learn.lesson import Block, Cell, Exercise, Figure, Lesson
from danlu.messages import text

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_CODE = HtmlFormatter(nowrap=True)


def write(folder: Path, wanted: list[Lesson]) -> list[Path]:
    """One page for each lesson and a list of all, in the language in force."""
    made = {f"{file_name(each)}": page(each, cells.run(each.module), wanted) for each in wanted}
    made["index.html"] = _page(text("learn.title"), _contents(wanted))
    for name, content in made.items():
        files.write_text(folder / name, content)
    return [folder / name for name in made]


def file_name(of: Lesson) -> str:
    return f"{of.number}-{of.name}.html"


def page(of: Lesson, run: Run, others: list[Lesson]) -> str:
    """A lesson that has run."""
    number, parts = 0, [f'<p class="kicker">{text("learn.kicker", number=of.number)}</p>']
    for block in of.blocks:
        number += isinstance(block, Exercise)
        parts.append(_block(block, of, run, number))
    parts += [_markdown(text("learn.after", number=of.number)), _neighbours(of, others)]
    return _page(of.title, "\n".join(parts))


def _block(block: Block, of: Lesson, run: Run, number: int) -> str:
    if isinstance(block, Cell):
        return _cell(of.code[block.name], run.printed[block.name])
    if isinstance(block, Figure):
        caption = _MARKDOWN.renderInline(lesson.filled(block.caption, run.values))
        return f"<figure>{run.pictures[block.name].svg()}<figcaption>{caption}</figcaption></figure>"
    if isinstance(block, Exercise):
        task = _markdown(f"**{number} · `{block.name}`** {block.task}")
        return f'<section class="exercise">{task}</section>'
    return _prose(lesson.filled(block.text, run.values))


def _cell(code: str, printed: str) -> str:
    shown = f'<pre class="code">{highlight(code, PythonLexer(), _CODE).rstrip()}</pre>'
    return shown + f'<pre class="out">{html.escape(printed)}</pre>' * bool(printed)


def _prose(page: str) -> str:
    """Text, and below it the lines of source that it leads to, folded away."""
    linked = source.link(page, lambda words, place: f"{words} (`{place}`)")
    return _markdown(linked) + "".join(_folded(place) for place in source.places(page))


def _folded(place: source.Place) -> str:
    code = highlight(place.text, PythonLexer(), _CODE).rstrip()
    return f"<details><summary><code>{place}</code></summary><pre class='code'>{code}</pre></details>"


def _markdown(page: str) -> str:
    return str(_MARKDOWN.render(page))


def _contents(wanted: list[Lesson]) -> str:
    title, about = html.escape(text("learn.title")), _markdown(text("learn.about"))
    return f'<h1>{title}</h1>{about}<ol class="contents">{"".join(map(_row, wanted))}</ol>'


def _row(each: Lesson) -> str:
    link = f'<a href="{file_name(each)}">{html.escape(each.title)}</a>'
    return f"<li>{link}<p>{_MARKDOWN.renderInline(each.lead)}</p></li>"


def _neighbours(of: Lesson, others: list[Lesson]) -> str:
    return f"<nav>{''.join(_steps(of, others))}</nav>"


def _steps(of: Lesson, others: list[Lesson]) -> Iterator[str]:
    yield f'<a href="index.html">{text("learn.all")}</a>'
    for other in others:
        if abs(other.number - of.number) == 1:
            sign = "← {}" if other.number < of.number else "{} →"
            yield f'<a href="{file_name(other)}">{sign.format(html.escape(other.title))}</a>'


def _page(title: str, body: str) -> str:
    style = drawing.STYLE.read_text("utf-8") + Path(__file__).with_suffix(".css").read_text("utf-8")
    return standing.page(title, body, style)
