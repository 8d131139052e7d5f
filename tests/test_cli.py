"""The command itself: what it prints, in which form and language, and how it refuses."""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu import cli, messages, results, usage
from danlu.errors import UserError
from danlu.terminal import Terminal


@pytest.fixture(autouse=True)
def language(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """--lang changes the environment; it comes back."""
    before = messages.language()
    monkeypatch.setenv("DANLU_LANG", before)
    monkeypatch.delenv("DANLU_API_KEY", raising=False)
    yield
    messages.use(before)


def serving(*arguments: str) -> Any:
    return usage.serving(cli._parse(cli._parser(), ["serve", *arguments]))


def recipe(folder: Path, serve: str = "port = 9001\nslots = 3") -> Path:
    path = folder / "recipe.toml"
    path.write_text(f'task = "language_modeling"\n[data]\npath = "texts"\n[train]\nsteps = 1\n[serve]\n{serve}\n')
    return path


# --- serve ---


def test_serving_takes_the_live_recipe_and_flags_on_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(tmp_path)
    for named in (path, tmp_path):
        found = serving(str(named), "--slots", "5", "--queue", "7")
        assert (found.port, found.slots, found.queue, found.api_key) == (9001, 5, 7, None)
    monkeypatch.setenv("DANLU_API_KEY", "from-outside")
    assert serving(str(path)).api_key == "from-outside"
    assert serving(str(path), "--api-key", "flag").api_key == "flag"


def test_a_model_folder_is_served_with_defaults_whatever_recipe_lies_in_it(tmp_path: Path) -> None:
    recipe(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert (serving(str(tmp_path)).port, serving(str(tmp_path), "--port", "1").port) == (8000, 1)


def test_all_wrong_flags_are_named_in_our_words(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        serving(str(tmp_path), "--port", "99999", "--slots", "0")
    assert [(p.code, p.where) for p in caught.value.problems] == [("E104", "--port"), ("E104", "--slots")]
    assert "pydantic" not in caught.value.render()
    assert "at most 65535; found 99999" in caught.value.render()


# --- usage ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "missing: model"),
        (["serve", "m", "--port", "x"], "--port must be of type int; found 'x'"),
        (["serve", "m", "--port"], "--port needs a value"),
        (["list", "x"], "what must be one of 'tasks', 'models'; found 'x'"),
        (["run", "--nothing"], "unknown: --nothing"),
        (["runs", "gc", "--older", "banana"], "--older: a duration"),
        (["runs", "gc", "--keep", "-1"], "--keep: at least 0"),
    ],
)
def test_a_wrong_call_is_refused_in_our_words(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err
    assert cli.main([*arguments, "--json"]) == 2
    shown = capsys.readouterr()
    assert said in json.loads(shown.out)["errors"][0]["message"]
    assert shown.err == ""


def test_help_is_chinese_where_chinese_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--lang", "zh", "run", "--help"])
    shown = capsys.readouterr().out
    assert not [word for word in ("usage", "positional", "options:", "show this") if word in shown]
    assert shown.count(messages.text("usage.options")) == 1
    assert cli.main(["--lang", "zh", "serve"]) == 2
    assert capsys.readouterr().err.startswith(messages.text("problem.error"))


# --- results ---


def test_text_is_shown_as_it_is(capsys: pytest.CaptureFixture) -> None:
    long = ":smile: [red]word[/red] " * 30
    results.show(long, as_json=False)
    assert capsys.readouterr().out == long + "\n"


def test_tables_are_neither_cut_nor_marked_up_in_a_pipe(capsys: pytest.CaptureFixture) -> None:
    path = "/somewhere/[bold]deep" * 20
    results.table([{"run": ":smile:", "base.loss": 1.23456, path: None}, {"run": path}], as_json=False)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "base.loss", path]
    assert first.split() == [":smile:", "1.235"]
    assert second.rstrip() == path


# --- predict ---


@pytest.mark.parametrize("data", [b"abc\xff", "丹炉".encode("gb18030")])
def test_input_that_is_not_utf8_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    for given in (None, os.fsdecode(data)):
        with pytest.raises(UserError) as caught:
            usage.prompt(given)
        assert (caught.value.code, caught.value.exit) == ("E217", 3)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_input_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("炉\n火".encode())))
    assert (usage.prompt(None), usage.prompt("丹")) == ("炉\n火", "丹")


# --- the view ---


@pytest.mark.parametrize("flags", [{}, {"verbose": True}, {"verbose": True, "quiet": True}])
def test_details_are_for_those_who_ask(flags: dict[str, bool]) -> None:
    stream = io.StringIO()
    Terminal(stream=stream, **flags).detail("key 12")
    assert stream.getvalue() == ("  key 12\n" if flags == {"verbose": True} else "")


def test_the_view_is_closed_before_an_error_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(Terminal, "close", lambda self: closed.append(True))
    options = argparse.Namespace(quiet=False, json=False, verbose=False)
    with pytest.raises(UserError), cli._view(options):
        raise UserError("E108")
    assert closed == [True]
