"""Values of a record, and what is wrong with one."""

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]


class Flaw(Exception):
    """What is wrong with one record: a key under [data.flaw] of the messages, and its fields."""

    def __init__(self, key: str, /, **fields: Any):
        super().__init__(key, fields)
        self.key, self.fields = key, fields


def text(value: Any, name: str) -> str:
    """A value that must be a text.

    Raises:
        Flaw: type, it is none; surrogate, it holds half of a pair.
    """
    if not isinstance(value, str):
        raise Flaw("type", name=name, found=kind(value))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Flaw("surrogate", name=name) from None
    return value


def kind(value: Any) -> str:
    """What a value is, in JSON's words."""
    names = {dict: "object", list: "list", bool: "true/false", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def required(row: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    """Raise Flaw (column) where a record lacks one of these."""
    if absent := [name for name in columns if name not in row]:
        raise Flaw("column", column=absent[0], found=", ".join(map(str, row)))
