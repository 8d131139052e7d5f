"""What the operating system and the standard library say, said in the user's language."""

import errno
import json
import tomllib

import pytest

from danlu import messages
from danlu.messages.reasons import because, syntax

BROKEN_TOML = [
    "a = 1\na = 2",
    "[a]\n[a]",
    "a",
    "[a",
    "a = 1 b = 2",
    "a = 1979-13-01",
    'a = "\\u00zz"',
    'a = "\\q"',
    "= 1",
    "%",
    "a = ",
    "a = [1",
    "a = {b = 1",
    'a = "x',
    'a = "x\ny"',
    "a = {b = 1, b = 2}",
    "a = 1\n[a.b]",
    "a = tru",
    "[[a]",
    "a.b.",
]
BROKEN_JSON = ["", "{", '{"a" 1}', '{"a": }', '{"a": 1 "b"}', '{"a": 1} x', '"a', '"\x01"', '"\\q"', "[1 2]"]


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("DANLU_LANG", "zh")


@pytest.mark.parametrize("content", BROKEN_TOML)
def test_every_complaint_about_toml_is_said_in_chinese(chinese, content):
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(content)
    assert any("一" <= letter <= "鿿" for letter in syntax(str(caught.value))), str(caught.value)


@pytest.mark.parametrize("content", BROKEN_JSON)
def test_every_complaint_about_json_is_said_in_chinese(chinese, content):
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(content)
    assert any("一" <= letter <= "鿿" for letter in because(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", messages.catalogue("en")["reasons"]["os"])
def test_known_refusals_of_the_system_are_translated(chinese, name):
    number = getattr(errno, name)
    assert because(OSError(number, "in English")) == messages.catalogue("zh")["reasons"]["os"][name]


def test_what_is_not_known_is_said_as_it_came(chinese):
    assert because(OSError(errno.ENOTTY, "not a typewriter")) == "not a typewriter"
    assert because(ValueError("of its own")) == "of its own"
    assert because(ValueError()) == "ValueError"
