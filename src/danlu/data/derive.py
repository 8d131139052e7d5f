"""Rows made from rows: pairs to tune on, drawn from text that is already prepared."""

import ast
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from danlu.errors import UserError

Row = dict[str, Any]
Derivation = Callable[[Row], Iterator[Row]]
_LONGEST = 4000  # characters of a pair


def python_functions(row: Row) -> Iterator[Row]:
    """Each documented function of a Python source as a pair: signature and docstring -> body.

    `row` has id, source ("file:line") and text. Pairs are dedented source, ids are "<row id>#<n>", the source names
    the function's line. Text that is no Python gives none.
    """
    try:
        tree = ast.parse(row["text"])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = row["text"].splitlines(keepends=True)
    name, _, first = row["source"].rpartition(":")
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    pairs = ((node.lineno, _pair(node, lines)) for node in sorted(functions, key=lambda node: node.lineno))
    for number, (line, pair) in enumerate((line, pair) for line, pair in pairs if pair):
        yield {"id": f"{row['id']}#{number:04d}", "source": f"{name}:{int(first) + line - 1}", **pair}


def _pair(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> dict[str, str] | None:
    """Prompt and completion of a function that has a docstring and a body beyond it, each on lines of their own."""
    if ast.get_docstring(node) is None or len(node.body) < 2:
        return None
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    ends, end = node.body[0].end_lineno, node.end_lineno
    assert ends is not None
    assert end is not None
    if node.body[1].lineno <= ends or end - start > 200:
        return None
    whole = textwrap.dedent("".join(lines[start - 1 : end])).splitlines(keepends=True)
    prompt, completion = "".join(whole[: ends - start + 1]), "".join(whole[ends - start + 1 :]).strip("\n")
    if len(prompt) + len(completion) > _LONGEST or not completion.strip():
        return None
    return {"prompt": prompt, "completion": completion}


def same_rows(row: Row) -> Iterator[Row]:
    """The row itself: pairs and chats whose text was learned first are then learned as answers, in the same split.

    Raises:
        UserError: E218, the row is plain text.
    """
    if not (row.get("messages") or row.get("completion")):
        raise UserError("E218", where=row["source"], derive="same_rows")
    yield {name: value for name, value in row.items() if name != "text"}


DERIVATIONS: dict[str, Derivation] = {"python_functions": python_functions, "same_rows": same_rows}


def derivation(name: str) -> Derivation:
    """The derivation of that name.

    Raises:
        UserError: E215, there is none.
    """
    if name not in DERIVATIONS:
        raise UserError("E215", name=name, valid=", ".join(DERIVATIONS))
    return DERIVATIONS[name]
