"""Everything danlu says, in two languages: the prose stands only in en.toml and zh.toml beside this file."""

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")


def language() -> str:
    """The language in force: DANLU_LANG, else the locale, else English."""
    chosen = os.environ.get("DANLU_LANG", "")
    if chosen in LANGUAGES:
        return chosen
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def use(code: str) -> None:
    """Speak `code` from here on, in this process and in the ones it starts."""
    os.environ["DANLU_LANG"] = code


@cache
def catalogue(code: str) -> dict[str, Any]:
    """The whole catalogue of one language, as nested tables."""
    with open(Path(__file__).with_name(f"{code}.toml"), "rb") as file:
        return tomllib.load(file)


def find(key: str) -> Any:
    """The raw entry under a dotted key, or None."""
    entry: Any = catalogue(language())
    for part in key.split("."):
        if not isinstance(entry, dict) or part not in entry:
            return None
        entry = entry[part]
    return entry


def text(key: str, /, **fields: Any) -> str:
    """The sentence under a dotted key with its fields filled in.

    Raises:
        KeyError: no such key in the catalogue (a mistake of ours; a test finds it).
    """
    entry = find(key)
    if not isinstance(entry, str):
        raise KeyError(f"no message {key!r} in {language()}.toml")
    return entry.format(**fields)
