"""The first recipe for raw files: what they hold decides its task."""

import importlib
import json
from pathlib import Path
from typing import Any

from danlu import messages

_KINDS = {"text_classification": "labelled"}  # task: who recognises its raw files, the more particular first


def recipe(source: Path, named: Path) -> tuple[str, int]:
    """A short commented recipe for what is found at `source`, which it calls `named`, and the rows that were seen.

    Raises:
        UserError: nothing there, no file of a kind we read, or rows without text.
    """
    from danlu.data import sniff

    for task in _KINDS:
        found = _kind(task).look(source.resolve())
        if found:
            return _kind(task).recipe_text(found, named), found.count
    sniffed = sniff.sniff(source)
    return sniff.recipe_text(sniffed, named), sniffed.rows


def keys(path: Path, task: str) -> dict[str, Any]:
    """How the raw files there are read for a task: keys of [data]; none where nothing is found for it.

    Raises:
        UserError: nothing there, or a file that cannot be read.
    """
    found = _kind(task).look(path) if task in _KINDS else None
    return dict(found.keys) if found else {}


def _kind(task: str) -> Any:
    return importlib.import_module(f"danlu.data.{_KINDS[task]}")


def commented(key: str, value: str, note: str) -> str:
    """A line of a recipe, with what it means."""
    return f"{f'{key} = {value}':<40}  # {messages.text(f'init.note.{note}')}"


def quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
