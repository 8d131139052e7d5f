"""Lessons as Markdown for the repository's page, with what they print and draw."""

from __future__ import annotations

import re
from collections.abc import Iterator

from danlu import messages
from danlu.learn import cells, drawing, lesson, source
from danlu.learn.cells import Run
from danlu.learn.lesson import Block, Cell, Exercise, Figure, Lesson, lessons
from danlu.messages import text

_UP = "../../../src/danlu"  # from docs/LANGUAGE/tutorials


def pages(ran: dict[str, Run]) -> dict[str, str]:
    """{file name: text} of all lessons, their pictures and their list, in the language in force."""
    made = {"README.md": contents()}
    for each in lessons():
        made[f"{stem(each)}.md"] = "\n\n".join([*_parts(each, ran[each.name])]) + "\n"
        for name, drawn in ran[each.name].pictures.items():
            made[f"{stem(each)}-{name}.svg"] = drawing.alone(drawn.svg())
    return made


def run_all() -> dict[str, Run]:
    """Every lesson, run once."""
    return {each.name: cells.run(each.module) for each in lessons()}


def stem(of: Lesson) -> str:
    return f"{of.number}-{of.name}"


def contents() -> str:
    rows = [f"{each.number}. [{each.title}]({stem(each)}.md): {each.lead}" for each in lessons()]
    return "\n\n".join([f"# {text('learn.title')}", text("learn.about"), "\n".join(rows)]) + "\n"


def _parts(of: Lesson, run: Run) -> Iterator[str]:
    number = 0
    for block in of.blocks:
        number += isinstance(block, Exercise)
        yield _part(block, of, run, number)
    yield text("learn.after", number=of.number)


def _part(block: Block, of: Lesson, run: Run, number: int) -> str:
    if isinstance(block, Cell):
        shown = [f"```python\n{of.code[block.name]}\n```"]
        printed = run.printed[block.name]
        return "\n\n".join([*shown, *[f"```text\n{printed}\n```"] * bool(printed)])
    if isinstance(block, Figure):
        return f"![{lesson.filled(block.caption, run.values)}]({stem(of)}-{block.name}.svg)"
    if isinstance(block, Exercise):
        return f"**{number} · `{block.name}`** {block.task}"
    return source.link(lesson.filled(block.text, run.values), _link)


def _link(words: str, place: source.Place) -> str:
    return f"[{words}]({_UP}/{place.path.as_posix()}#L{place.first}-L{place.last})"


# --- the same page again -----------------------------------------------------------------------------

_NUMBER = re.compile(r"(?P<here>~)?-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?P<clock> ?(?:ms|µs|s|MB/s|×|秒|毫秒)(?!\w))?")
_LINES = re.compile(r"#L\d+-L\d+")


def agrees(old: str, new: str, within: float = 0.03) -> bool:
    """Whether two pages say the same: all text equal, numbers within 3 % or 0.02; times, lines and ~7 apart."""
    old, new = _LINES.sub("", old), _LINES.sub("", new)
    if _NUMBER.sub("", old) != _NUMBER.sub("", new):
        return False
    return all(
        a["clock"] or a["here"] or abs(_value(a) - _value(b)) <= max(0.02, within * abs(_value(b)))
        for a, b in zip(_NUMBER.finditer(old), _NUMBER.finditer(new), strict=True)
    )


def renewed(old: str, new: str) -> str:
    """The page to keep: the old one where only rounding and times differ, else the new one."""
    return old if agrees(old, new) and _LINES.findall(old) == _LINES.findall(new) else new


def _value(found: re.Match[str]) -> float:
    return float(found[0].removesuffix(found["clock"] or "").removeprefix("~").replace(",", ""))


def languages() -> Iterator[str]:
    """Every language in turn, in force while it is yielded; the one before comes back."""
    before = messages.language()
    for code in messages.LANGUAGES:
        messages.use(code)
        yield code
    messages.use(before)
