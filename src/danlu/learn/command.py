"""`danlu learn`: the list of lessons, a lesson, its exercises, its pages, and the mirror."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from danlu import files, results
from danlu.errors import UserError
from danlu.learn import exercises, lesson
from danlu.learn.lesson import Lesson
from danlu.messages import text

_WIDE = 100  # columns where there is no terminal


def learn(options: argparse.Namespace) -> int:
    """Do what `danlu learn` was asked; returns the exit code: 1 where an answer is not right yet."""
    what, *rest = options.lesson or [""]
    if what == "mirror":
        return _mirror(rest, options)
    if rest:
        raise UserError("E133")
    wanted = lesson.find(what) if what else None
    if options.html is not None:
        return _html(wanted, options)
    if wanted is None:
        return _contents(options)
    if options.start:
        return _start(wanted, options)
    if options.check is not None:
        return _check(wanted, options)
    return _read(wanted, options)


def _contents(options: argparse.Namespace) -> int:
    if options.start or options.check is not None:
        raise UserError("E133")
    found = lesson.lessons()
    if options.json:
        results.show(
            [{"number": e.number, "name": e.name, "title": e.title, "about": e.lead} for e in found], as_json=True
        )
        return 0
    from danlu.learn.reading import Page

    rows = "\n".join(f"{each.number}. **{each.title}**  \n{each.lead}" for each in found)
    _console().print(Page(f"# {text('learn.title')}\n\n{text('learn.about')}\n\n{rows}\n\n{text('learn.how')}"))
    return 0


def _read(wanted: Lesson, options: argparse.Namespace) -> int:
    if options.json:
        from danlu.learn import cells

        run = cells.run(wanted.module)
        results.show({"title": wanted.title, "code": wanted.code, "printed": run.printed}, as_json=True)
        return 0
    from danlu.learn.reading import Reader

    Reader(wanted, _console(), wait=sys.stdin.isatty() and sys.stdout.isatty()).read()
    return 0


def _console() -> Any:
    from rich.console import Console

    return Console(emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def _start(wanted: Lesson, options: argparse.Namespace) -> int:
    """Write the file to fill in.

    Raises:
        UserError: E134, it is there already.
    """
    path = exercises.answer_file(wanted)
    if path.exists():
        raise UserError("E134", path=path, number=wanted.number)
    files.write_text(path, exercises.stub(wanted))
    results.show({"file": path} if options.json else text("learn.started", path=path, number=wanted.number),
                 as_json=options.json)  # fmt: skip
    return 0


def _check(wanted: Lesson, options: argparse.Namespace) -> int:
    verdicts = exercises.check(wanted, Path(options.check or exercises.answer_file(wanted)))
    if options.json:
        results.show([vars(each) for each in verdicts], as_json=True)
    else:
        results.show("\n".join(exercises.lines(verdicts)), as_json=False)
    return 0 if all(each.state == "right" for each in verdicts) else 1


def _html(wanted: Lesson | None, options: argparse.Namespace) -> int:
    from danlu.learn import pages

    folder = Path(options.html)
    made = pages.write(folder, [wanted] if wanted else lesson.lessons())
    results.show({"files": made} if options.json else text("learn.written", path=made[0 if wanted else -1]),
                 as_json=options.json)  # fmt: skip
    return 0


def _mirror(rest: list[str], options: argparse.Namespace) -> int:
    """One batch of the reader's own model through both engines; 1 where they differ."""
    if not 1 <= len(rest) <= 2:
        raise UserError("E133")
    from danlu.learn.mirror import TOLERANCE, batch_of, mirror
    from danlu.model import Model

    model = Model.from_pretrained(rest[0])
    found = mirror(model, batch_of(model, rest[1] if len(rest) == 2 else text("learn.mirror.text")))
    results.table([_row(each) for each in found], as_json=options.json)
    apart = [each for each in found if not each.difference <= TOLERANCE]
    worst = max(each.difference for each in found)
    if not options.json:
        verdict = "learn.mirror.apart" if apart else "learn.mirror.same"
        results.show(text(verdict, n=len(found), apart=len(apart), worst=f"{worst:.1e}"), as_json=False)
    return 1 if apart else 0


def _row(each: Any) -> dict[str, str]:
    kind = text(f"learn.mirror.{each.kind.replace(' ', '_')}")
    shape = "×".join(map(str, each.shape))
    return {"part": each.name, "kind": kind, "shape": shape, "difference": f"{each.difference:.1e}"}
