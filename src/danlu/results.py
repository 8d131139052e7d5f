"""What a command answers, on standard output: JSON where asked for, else text or a table, unchanged in a pipe."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from danlu import messages

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000  # columns where nothing may be cut or wrapped: no terminal reads it
_PAGE = 120


def show(value: Any, *, as_json: bool) -> None:
    """A text as it stands, or something that rich shows."""
    if as_json:
        value = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, str):
        sys.stdout.write(value + "\n")
        sys.stdout.flush()
    else:
        _console(_PAGE).print(value)


def table(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Rows with the same keys."""
    if as_json:
        show(rows, as_json=True)
        return
    from rich.table import Column, Table
    from rich.text import Text

    keys = list(dict.fromkeys(key for row in rows for key in row))
    made = Table(*(Column(Text(head(key))) for key in keys), box=None, pad_edge=False)
    for row in rows:
        made.add_row(*(Text(_cell(row.get(key))) for key in keys))
    _console(_WIDE).print(made)


def head(key: str) -> str:
    """The title of a column; "base.loss" is the loss of base."""
    if title := messages.find(f"table.{key}"):
        return str(title)
    role, dot, metric = key.rpartition(".")
    name = messages.find(f"metrics.{metric}")
    return f"{role}{dot}{name}" if dot and isinstance(name, str) else key


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _console(width: int) -> "Console":
    """A console of the terminal's width, or of `width` where there is no terminal."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else width)
