"""Exercises: what is right, what was expected and why; and the command around the lessons."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from danlu import cli, messages
from danlu.learn import command, exercises
from danlu.learn.exercises import check, same, stub
from danlu.learn.lesson import Lesson, lessons
from danlu.learn.mirror import Agreement

ALL = pytest.mark.parametrize("of", lessons(), ids=lambda each: each.name)


@pytest.fixture(autouse=True)
def speaking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DANLU_LANG", "en")
    monkeypatch.chdir(tmp_path)


def answered(of: Lesson, text: str) -> list[str]:
    path = Path(f"lesson{of.number}.py")
    path.write_text(text, "utf-8")
    return [each.state for each in check(of, path)]


@ALL
@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_the_file_to_fill_in_runs_and_has_every_exercise_open(of: Lesson, language: str) -> None:
    messages.use(language)
    text = stub(of)
    assert max(map(len, text.splitlines())) <= 110
    assert answered(of, text) == ["open"] * len(of.exercises)


@ALL
def test_our_own_answers_are_right(of: Lesson) -> None:
    source = inspect.getsource(exercises._answers(of))
    assert answered(of, source) == ["right"] * len(of.exercises)


@ALL
def test_no_case_is_passed_by_a_constant(of: Lesson) -> None:
    """Two cases of an exercise have different answers, so that nobody guesses right."""
    ours = vars(exercises._answers(of))
    for each in of.exercises:
        first, second, *_ = (ours[each.name](*arguments) for arguments in ours["CASES"][each.name])
        assert not same(first, second), each.name


WRONG = """
def neuron(x, w, b):
    return float((x * w).sum())       # no bias
def neuron_gradient(x, w, b, y):
    p = max(w @ x + b, 0)
    return 2 * (p - y) * x, 2 * (p - y)
def layer(x, W, b):
    return x + W                      # the shapes do not fit
"""


def test_a_wrong_answer_is_shown_with_what_was_expected_and_why() -> None:
    of = lessons()[0]
    Path("lesson1.py").write_text(WRONG)
    found = {each.name: each for each in check(of, Path("lesson1.py"))}
    assert [each.state for each in found.values()] == ["wrong", "wrong", "failed", "open"]
    neuron = found["neuron"]
    assert (neuron.call, neuron.got, neuron.expected) == ("neuron([1., 0.] (2,), [0.5, 0.5] (2,), 0.5)", "0.5", "1")
    assert "adds up ALL" in neuron.why
    assert found["neuron_gradient"].got == "([2., 0.] (2,), 2)"
    assert "(line 8)" in found["layer"].got and "ValueError" in found["layer"].got
    said = "\n".join(exercises.lines(list(found.values())))
    assert "expected:" in said and "0 of 4 right" in said


def test_numbers_are_compared_to_six_digits_and_arrays_by_shape() -> None:
    assert same(1.0000001, 1.0) and not same(1.001, 1.0)
    assert same([1.0, 2.0], np.array([1.0, 2.0])) and not same(np.ones((2, 1)), np.ones(2))
    assert not same("x", 1.0) and not same(None, np.ones(2))
    assert same((np.ones(2), 1.0), (np.ones(2), 1.0)) and not same((np.ones(2), 2.0), (np.ones(2), 1.0))


# --- the command ---


def test_the_exercises_are_started_checked_and_never_overwritten(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["learn", "1", "--start"]) == 0
    assert cli.main(["learn", "1", "--start"]) == 2
    assert cli.main(["learn", "1", "--check"]) == 1
    assert "0 of 4 right" in capsys.readouterr().out
    Path("mine.py").write_text(inspect.getsource(exercises._answers(lessons()[0])))
    assert cli.main(["learn", "1", "--check", "mine.py", "--json"]) == 0
    assert {each["state"] for each in json.loads(capsys.readouterr().out)} == {"right"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["9"], "E130"),
        (["1", "--check"], "E131"),
        (["1", "2"], "E133"),
        (["--check"], "E133"),
        (["--start"], "E133"),
        (["mirror"], "E133"),
    ],
)
def test_a_wrong_call_is_refused(arguments: list[str], code: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["learn", *arguments]) == 2
    assert f"[{code}]" in capsys.readouterr().err


def test_a_file_that_does_not_run_is_said_with_its_line(capsys: pytest.CaptureFixture) -> None:
    Path("lesson1.py").write_text("import numpy\n\n1 / 0\n")
    assert cli.main(["learn", "1", "--check"]) == 2
    assert "ZeroDivisionError: division by zero (line 3)" in capsys.readouterr().err


def test_the_list_names_every_lesson(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["learn"]) == 0
    shown = capsys.readouterr().out
    assert all(each.title in shown for each in lessons())
    assert cli.main(["learn", "--json"]) == 0
    assert [each["number"] for each in json.loads(capsys.readouterr().out)] == [each.number for each in lessons()]


def test_a_lesson_is_read_in_a_pipe(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["learn", "1"]) == 0
    shown = capsys.readouterr().out
    assert "(up - down) / 2h = 1.000000" in shown and "danlu learn 1 --check" in shown
    assert cli.main(["learn", "neuron", "--html", "out"]) == 0
    assert Path("out/1-neuron.html").is_file()


def test_the_mirror_says_whether_both_engines_agree(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from danlu.modalities.text import Text
    from danlu.model import Model
    from danlu.models import qwen3

    text = Text.fit(["the quick brown fox"] * 4, type="bpe", vocab_size=300)
    form = qwen3.preset(text.vocab_size, 64, 1, width=32, heads=4, kv_heads=2, head_dim=16, hidden=48)
    Model.from_architecture(form, text, "language_modeling").save_pretrained("model")
    assert cli.main(["learn", "mirror", "model", "a brown fox"]) == 0
    shown = capsys.readouterr().out
    assert "core.blocks.0.attention.inner.q" in shown and "agree in all" in shown
    monkeypatch.setattr("danlu.learn.mirror.mirror", lambda model, batch: [Agreement("loss", "loss", (), 1e-3)])
    assert cli.main(["learn", "mirror", "model"]) == 1
    assert "1 of 1 arrays differ" in capsys.readouterr().out
    assert command._WIDE == 100


def test_a_lesson_without_its_library_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert cli.main(["learn", "2"]) == 2
    said = capsys.readouterr().err
    assert "E135" in said and 'pip install "danlu[learn]"' in said
