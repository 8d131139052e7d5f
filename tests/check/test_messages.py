"""Everything said exists in both languages, with the same fields, and is said somewhere."""

import ast
import re
import string
from collections.abc import Iterator
from functools import cache

import pytest

from danlu import messages
from tests.check.tree import calls, modules

_SAY = ("text", "messages.text", "message")


@cache
def _flat(language: str) -> dict[str, str]:
    return dict(_sentences(messages.catalogue(language), ""))


def _sentences(table: dict[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _sentences(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)


def _fields(sentence: str) -> set[str]:
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def _codes_in_source() -> set[str]:
    nodes = (node for module in modules() for node in ast.walk(module.tree) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if isinstance(node.value, str) and re.fullmatch(r"E[1-6]\d\d", node.value)}


def test_both_languages_say_the_same() -> None:
    english, chinese = _flat("en"), _flat("zh")
    assert set(english) ^ set(chinese) == set()
    fields = {key: (_fields(english[key]), _fields(chinese[key])) for key in english}
    assert {key: both for key, both in fields.items() if both[0] != both[1]} == {}


def test_chinese_is_chinese() -> None:
    """Three words or more without a Chinese character were not translated; a fix to paste needs none."""
    chinese = _flat("zh")
    plain = [key for key, value in chinese.items() if not re.search(r"[\u4e00-\u9fff]", value)]
    words = {key: len(re.findall(r"[a-zA-Z]{3,}", re.sub(r"\{[^}]*\}", "", chinese[key]))) for key in plain}
    assert not [key for key in plain if words[key] > 2 and not key.endswith(".fix")]


def test_every_error_code_has_its_sentence_and_is_used() -> None:
    catalogued = {key.split(".")[1] for key in _flat("en") if key.startswith("errors.")}
    assert _codes_in_source() - catalogued == set(), "raised, but not in the catalogue"
    assert catalogued - _codes_in_source() == set(), "in the catalogue, but never raised"
    assert {code for code in catalogued if f"errors.{code}.what" not in _flat("en")} == set()


def test_every_error_brings_the_fields_of_its_sentence() -> None:
    missing = []
    for module, call in calls("UserError"):
        code = call.args[0]
        if isinstance(code, ast.Constant) and all(keyword.arg for keyword in call.keywords):
            entry = [_flat("en").get(f"errors.{code.value}.{part}", "") for part in ("what", "fix")]
            wanted = set().union(*map(_fields, entry)) - {keyword.arg for keyword in call.keywords} - {"where"}
            missing += [f"{module.at(call)}: {code.value} lacks {sorted(wanted)}"] * bool(wanted)
    assert not missing, "\n".join(missing)


def test_every_sentence_asked_for_exists_and_gets_its_fields() -> None:
    wrong = []
    for module, call in calls(*_SAY):
        key = call.args[0] if call.args else None
        if not isinstance(key, ast.Constant):
            continue
        if key.value not in _flat("en"):
            wrong.append(f"{module.at(call)}: no message {key.value!r}")
        elif all(keyword.arg for keyword in call.keywords):
            lacks = _fields(_flat("en")[key.value]) - {keyword.arg for keyword in call.keywords}
            wrong += [f"{module.at(call)}: {key.value} lacks {sorted(lacks)}"] * bool(lacks)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_no_sentence_is_left_over(language: str) -> None:
    """A key is used where some string of the source is that key, or an f-string could be."""
    nodes = (node for module in modules() for node in ast.walk(module.tree))
    patterns = {_pattern(node) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)}
    used = re.compile("|".join(f"(?:{each})" for each in patterns if each))
    assert not [key for key in _flat(language) if not key.startswith("errors.") and not used.fullmatch(key)]


def _pattern(node: ast.JoinedStr | ast.Constant) -> str:
    """A regular expression of the keys that a string can be; "" where it cannot be one."""
    if isinstance(node, ast.Constant):
        return re.escape(node.value) if isinstance(node.value, str) and re.fullmatch(r"[a-z_0-9.]+", node.value) else ""
    parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"[A-Za-z0-9_]+" for p in node.values]
    first = node.values[0] if node.values else None
    return "".join(parts) if isinstance(first, ast.Constant) and re.match(r"[a-z_]+\.", str(first.value)) else ""
