"""Functions with documentation become pairs that are the source again when joined."""

import ast
import json
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from danlu.data import derive
from danlu.errors import UserError

_SOURCE = '''\
"""A module."""
import os

class Box:
    @property
    def size(self):
        """How large.

        In units.
        """

        total = 1
        return total  # 大小

    def plain(self):
        return 1

    async def only_doc(self):
        """Nothing else."""

def outer(a, *,
          b=2):
    "One line."
    def inner(c):
        """Within."""
        return c
    return inner(a) + b

def one_line(): "Doc."; return 1
'''


def _pairs(text: str) -> list[dict[str, str]]:
    return list(derive.python_functions({"id": "f-0", "source": "m.py:1", "text": text}))


def test_documented_functions_with_a_body_are_found() -> None:
    pairs = _pairs(_SOURCE)
    assert [(pair["id"], pair["source"]) for pair in pairs] == [
        ("f-0#0000", "m.py:6"),
        ("f-0#0001", "m.py:21"),
        ("f-0#0002", "m.py:24"),
    ]
    assert pairs[0]["prompt"].startswith("@property\ndef size(self):\n")
    assert pairs[0]["completion"] == "    total = 1\n    return total  # 大小"
    assert pairs[2] == {
        "id": "f-0#0002",
        "source": "m.py:24",
        "prompt": 'def inner(c):\n    """Within."""\n',
        "completion": "    return c",
    }


def _meaning(function: ast.stmt) -> list[str]:
    """A function without its documentation, whose indentation changes."""
    assert isinstance(function, ast.FunctionDef)
    return [function.name, ast.dump(function.args), *map(ast.dump, function.decorator_list + function.body[1:])]


@pytest.mark.parametrize("module", [textwrap, json, ast])
def test_a_joined_pair_is_a_function_with_the_same_meaning(module: ModuleType) -> None:
    text = Path(str(module.__file__)).read_text("utf-8")
    known = [_meaning(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    pairs = _pairs(text)
    assert len(pairs) >= 2
    assert all(_meaning(ast.parse(pair["prompt"] + pair["completion"]).body[0]) in known for pair in pairs)


@pytest.mark.parametrize("text", ["", "def broken(:", "print 'two'", "\0", "(" * 10_000])
def test_text_that_is_no_python_gives_nothing(text: str) -> None:
    assert _pairs(text) == []


def test_same_rows_are_the_rows_without_their_plain_text() -> None:
    row = {"id": "1", "source": "a:1", "text": "q\na", "prompt": "q", "completion": "a"}
    assert list(derive.same_rows(row)) == [{"id": "1", "source": "a:1", "prompt": "q", "completion": "a"}]


def test_an_unknown_derivation_is_refused() -> None:
    with pytest.raises(UserError, match="E215"):
        derive.derivation("java_functions")


def test_plain_text_has_no_answers() -> None:
    with pytest.raises(UserError, match="plain text") as raised:
        list(derive.same_rows({"id": "1", "source": "a.txt:1", "text": "To be"}))
    assert (raised.value.code, raised.value.exit) == ("E218", 3)
