"""A question, or the beginning of something, and several candidates of which one is right."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes.value import Flaw, Row, required, text

MARK = "choices"
COLUMNS = ("choices", "label")
OPTIONAL = ("text",)
CLEAN = ("normalize", "drop_empty", "dedup")
_OF = r"[ _]?(statement|sentence|answer|choice|option|ending)?"
CORRECT = re.compile(rf"correct{_OF}", re.IGNORECASE)
WRONG = re.compile(rf"((incorrect|wrong){_OF}|distractor)[ _]?\d*", re.IGNORECASE)
TOGETHER = 10  # questions with the same candidates, at most; what more share, like yes and no, is no content
NUMBERED = re.compile(r"(choice|ending|option|candidate|answer|statement|sent|选项)?[ _]?([0-9]|[A-Ha-h])")


def holds(row: Mapping[str, Any]) -> bool:
    """Whether a record has candidates, as a list or in columns of their own, and says which is right."""
    return bool(told(row)) or ("label" in row and ("choices" in row or len(_numbered(row)) > 1))


def told(row: Mapping[str, Any]) -> list[str]:
    """The columns of the right candidate and then of the wrong ones, where their names tell which is which."""
    if "choices" in row:
        return []
    right, wrong = ([name for name in row if form.fullmatch(str(name))] for form in (CORRECT, WRONG))
    return [*right, *wrong] if len(right) == 1 and wrong else []


def canonical(row: Mapping[str, Any]) -> Row:
    """The record with its candidates as a list, and the right one by its place in it, from "0".

    Which is right may be said by its place from 0, by a letter from A, by its text, or by the names of the columns:
    then their order is one that follows from the texts, so that it tells nothing.

    Raises:
        Flaw: choices, fewer than two of them, or one is no text; choice, none of them is the right one.
    """
    if names := told(row):
        given = [row[name] for name in names]
        row = {**row, "label": given[0]}
        given = sorted(given, key=lambda each: hashlib.sha256(str(each).encode()).digest())
    else:
        given = row["choices"] if "choices" in row else [row[name] for name in _numbered(row)]
    required(row, ("label",))
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
    if isinstance(given, dict):  # of Hugging Face's ARC and CommonsenseQA
        given = given.get("text")
    if not isinstance(given, list) or len(given) < 2 or any(not str(each or "").strip() for each in given):
        raise Flaw("choices", found=repr(given)[:60])
    made = [text(each, "choices") for each in given]
    asked = row.get("text")
    return {"text": "" if asked is None else text(asked, "text"), "choices": made, "label": _right(row["label"], made)}


def plain(row: Row) -> str:
    """All text of the row, as one string."""
    return "\n".join([*([row["text"]] if row["text"] else []), *row["choices"]])


def group(row: Row) -> str:
    """What decides on the split: questions with the same candidates stay together, whatever their order.

    Sets like Balanced COPA (1911.00225) ask twice about two sentences, and the other one is right: who learned the
    first by heart would be wrong on the second.
    """
    return "\n".join(sorted(row["choices"]))


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return {**row, "text": change(row["text"]), "choices": [change(each) for each in row["choices"]]}


def stored(row: Row) -> dict[str, str]:
    choices = json.dumps([row["text"], *row["choices"]], ensure_ascii=False)
    return {"text": plain(row), "choices": choices, "label": row["label"]}


def loaded(row: Mapping[str, Any]) -> Row:
    asked, *choices = json.loads(row["choices"])
    return {"text": asked, "choices": choices, "label": row["label"]}


def _numbered(row: Mapping[str, Any]) -> list[str]:
    """The columns of candidates, in order: choice1, choice2; ending0, ending1; A, B."""
    found = [(match[1] or "", match[2].lower(), name) for name in row if (match := NUMBERED.fullmatch(str(name)))]
    names = [kind for kind, _, _ in found]
    return [name for kind, _, name in sorted(found) if names.count(kind) > 1 and kind == max(names, key=names.count)]


def _right(label: Any, choices: list[str]) -> str:
    said = str(label).strip()
    if said in choices:
        return str(choices.index(said))
    place = int(said) if re.fullmatch(r"\d+(\.0)?", said) and "." not in said else -1
    place = ord(said.upper()) - ord("A") if re.fullmatch(r"[A-Ha-h]", said) else place
    if not 0 <= place < len(choices):
        raise Flaw("choice", found=said[:40], count=len(choices))
    return str(place)
