"""Exercises: functions that the reader fills in, compared with ours on examples.

lessons/NAME_answers.py holds our answer to each exercise as a function of its name, and CASES[name]: argument lists.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from danlu.errors import UserError
from danlu.learn.lesson import Exercise, Lesson
from danlu.learn.wrap import wrapped
from danlu.messages import text

_FREE = re.compile(r"\x1b|[\x00-\x08]")


@dataclass(frozen=True)
class Verdict:
    """What became of one exercise; `call` to `why` say more where it is not right."""

    name: str
    state: Literal["right", "open", "wrong", "failed"]
    call: str = ""
    got: str = ""
    expected: str = ""
    why: str = ""


def answer_file(of: Lesson) -> Path:
    """Where the reader's answers stand unless they say otherwise."""
    return Path(f"lesson{of.number}.py")


def _answers(of: Lesson) -> ModuleType:
    return importlib.import_module(f"{of.module}_answers")


def stub(of: Lesson) -> str:
    """The file to fill in."""
    head = f'"""{text("learn.stub", number=of.number, title=of.title)}"""\n\n{_imports(_answers(of))}\n'
    return "\n\n".join([head.rstrip("\n") + "\n", *(_stub(each, _answers(of)) for each in of.exercises)])


def _imports(answers: ModuleType) -> str:
    """What our answers import, theirs may need."""
    lines = inspect.getsource(answers).splitlines()
    return "\n".join(line for line in lines if line.startswith("import "))


def _stub(exercise: Exercise, answers: ModuleType) -> str:
    signature = inspect.signature(getattr(answers, exercise.name))
    bare = signature.replace(
        parameters=[each.replace(annotation=each.empty) for each in signature.parameters.values()],
        return_annotation=signature.empty,
    )
    lines = [line for part in exercise.task.split("\n\n") for line in (*_lines(part), "")]
    task = "\n".join(f"    # {line}".rstrip() for line in lines[:-1])
    return f"def {exercise.name}{bare}:\n{task}\n    return None\n"


def _lines(part: str) -> list[str]:
    """A paragraph of the task in lines of a comment; what is set apart stays as it is."""
    return part.splitlines() if part.startswith(("```", "    ", "- ")) else wrapped(" ".join(part.splitlines()), 100)


def check(of: Lesson, path: Path) -> list[Verdict]:
    """Every exercise of a lesson, as the reader's file answers it.

    Raises:
        UserError: E131, there is no such file; E132, it cannot be loaded.
    """
    if not path.is_file():
        raise UserError("E131", path=path, number=of.number)
    theirs, ours = _load(path), _answers(of)
    return [_verdict(each, vars(theirs), vars(ours)) for each in of.exercises]


def _load(path: Path) -> ModuleType:
    """Run the reader's own file, as `python lesson1.py` would."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError("E132", path=path, reason=_said(error, path)) from error
    return module


def _verdict(exercise: Exercise, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Verdict:
    name = exercise.name
    if name not in theirs:
        return Verdict(name, "open")
    for arguments in ours["CASES"][name]:
        call = f"{name}({', '.join(_shown(each) for each in arguments)})"
        expected = ours[name](*copy.deepcopy(arguments))
        try:
            got = theirs[name](*copy.deepcopy(arguments))
        except Exception as error:  # noqa: BLE001 whatever the reader's code does, it is told to them
            return Verdict(name, "failed", call, _said(error), _shown(expected), exercise.why)
        if got is None:
            return Verdict(name, "open")
        if not same(got, expected):
            return Verdict(name, "wrong", call, _shown(got), _shown(expected), exercise.why)
    return Verdict(name, "right")


def same(got: Any, expected: Any) -> bool:
    """Equal; numbers and arrays of one shape to six digits, in lists and tuples too."""
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, float | np.ndarray):
        try:
            a, b = np.asarray(got, dtype=float), np.asarray(expected, dtype=float)
        except (TypeError, ValueError):
            return False
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-6, atol=1e-9))
    return bool(got == expected)


def _shown(value: Any) -> str:
    """A value on one line, arrays with their shape, cut where it is long."""
    if isinstance(value, np.ndarray):
        shown = f"{np.array2string(np.round(value, 4), separator=', ')} {value.shape}".replace("\n", "")
    elif isinstance(value, float):
        shown = f"{value:.6g}"
    elif isinstance(value, tuple):
        shown = f"({', '.join(map(_shown, value))})"
    elif isinstance(value, set):
        shown = f"{{{', '.join(sorted(map(repr, value)))}}}"
    elif inspect.isfunction(value):
        shown = value.__name__
    else:
        shown = repr(value)
    shown = re.sub(" +", " ", _FREE.sub("", shown))
    return shown if len(shown) <= 300 else f"{shown[:297]}..."


def _said(error: Exception, path: Path | None = None) -> str:
    """ "ValueError: ... (line 12)" of the reader's file."""
    lines = [f"{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__) if "lesson" in frame.filename]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    return f"{type(error).__name__}: {error}" + (f" ({text('learn.line', line=line)})" if line else "")


def lines(verdicts: list[Verdict]) -> Iterator[str]:
    """The verdicts as they are printed."""
    marks = {"right": "✓", "open": "·", "wrong": "✗", "failed": "✗"}
    for each in verdicts:
        yield f"{marks[each.state]} {each.name}: {text(f'learn.verdict.{each.state}')}"
        if each.call:
            yield f"    {each.call}"
            yield f"    {text('learn.got')} {each.got}"
            yield f"    {text('learn.expected')} {each.expected}"
            yield from (f"    {line}" for line in wrapped(each.why, 88))
    right = sum(each.state == "right" for each in verdicts)
    yield text("learn.score", right=right, all=len(verdicts))
