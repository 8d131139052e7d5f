"""The first recipe for raw files: what they hold decides its task."""

import json
from pathlib import Path

from danlu import messages


def recipe(source: Path, named: Path) -> tuple[str, int]:
    """A short commented recipe for what is found at `source`, which it calls `named`, and the rows that were seen.

    Raises:
        UserError: nothing there, no file of a kind we read, or rows without text.
    """
    from danlu.data import labelled, sniff

    if found := labelled.look(source.resolve()):
        return labelled.recipe_text(found, named), found.count
    sniffed = sniff.sniff(source)
    return sniff.recipe_text(sniffed, named), sniffed.rows


def commented(key: str, value: str, note: str) -> str:
    """A line of a recipe, with what it means."""
    return f"{f'{key} = {value}':<40}  # {messages.text(f'init.note.{note}')}"


def quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
