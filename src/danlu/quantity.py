"""Quantities as people write them: "5min", "50M"; and what they write where there is none."""

import math
import re
from typing import Any

from danlu.messages import text

_SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


def seconds(duration: str) -> float:
    """Seconds of a duration as written: "90s", "5min", "1.5h".

    Raises:
        ValueError: not a duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(duration).lower())
    if not match or match[2] not in _SECONDS or float(match[1]) <= 0:
        raise ValueError(text("recipe.expected.duration"))
    return float(match[1]) * _SECONDS[match[2]]


def count(number: int | str) -> int:
    """The number behind "50M", "1.5B", "20k" or 5000.

    Raises:
        ValueError: not a positive count.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmbg]?)\s*", str(number).lower())
    if not match or float(match[1]) <= 0:
        raise ValueError(text("recipe.expected.count"))
    return int(float(match[1]) * _SCALE[match[2]])


MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "nan", "null", "none", "<na>"})  # as pandas has it, and UCI's "?"


def cell(value: Any) -> str | int | float | bool | None:
    """A cell of a table without spaces around it; None where it is missing.

    Raises:
        TypeError: it is a list or an object.
    """
    if isinstance(value, str):
        value = value.strip()
        return None if value.lower() in MISSING else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, bool | int | float):
        raise TypeError(type(value).__name__)
    return value
