"""What people type wrongly for tasks of pairs, pictures, boxes and choices: said at once, where, and with a way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from danlu import Model, cli, models
from danlu.data.columns import Columns
from danlu.modalities.image import Image
from tests.api import bert
from tests.tiny_pictures import KINDS, folders

RECIPE = """
task = "{task}"
[data]
path = "{path}"
split = {{ valid = 0.0, test = 0.0 }}
[model]
base = "base"
[train]
steps = 1
"""


def pictured(task: str, arch: str) -> Callable[[Path], object]:
    """The folder of a model of pictures with first weights."""

    def made(folder: Path) -> None:
        seen = Image(12, (0.5,) * 3, (0.2,) * 3)
        shape = models.preset(arch, 0, 1, 1, width=8, image=12, channels=3)
        Model.from_architecture(shape, seen, task, labels=KINDS).save_pretrained(folder)

    return made


MADE = pictured("image_generation", "ddpm")
PLAYED = pictured("adversarial_image_generation", "dcgan")
TOLD = pictured("image_classification", "cnn")
MISFITS = (
    ("image_generation", PLAYED, "E352"),
    ("image_generation", TOLD, "E352"),
    ("image_generation", bert.classifier, "E352"),
    ("adversarial_image_generation", MADE, "E352"),
    ("image_classification", MADE, "E352"),
    ("masked_image_modeling", TOLD, "E351"),
    ("masked_image_modeling", bert.classifier, "E352"),
    ("translation", TOLD, "E352"),
    ("translation", bert.classifier, "E349"),
)


@pytest.mark.parametrize(("task", "base", "code"), MISFITS)
def test_a_base_that_cannot_learn_the_task_is_refused_before_rows_are_read(
    task: str,
    base: Callable[[Path], object],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    base(tmp_path / "base")
    folders(tmp_path / "set", 3)
    (tmp_path / "pairs.csv").write_text("text,target\n" + "a,b\n" * 9, "utf-8")
    path = "pairs.csv" if task == "translation" else "set"
    (tmp_path / "recipe.toml").write_text(RECIPE.format(task=task, path=path), "utf-8")
    assert cli.main(["run", "recipe.toml"]) == 4
    told = capsys.readouterr().err
    assert f"[{code}]" in told
    assert "base" in told
    assert task in told
    assert not list(tmp_path.glob("runs/store/*"))


def chosen(folder: Path) -> Path:
    """A recipe of questions, one of them longer than the base sees, that does not say how long a text may be."""
    rows: list[dict[str, Any]] = [
        {"text": "it is", "choices": ["the king.", f"a ship {n}."], "label": 0} for n in range(9)
    ]
    rows[4]["text"] = "it is the king, " * 40
    bert.folder(folder / "base")  # which sees 64 tokens
    bert.jsonl(folder / "rows.jsonl", rows)
    (folder / "recipe.toml").write_text(RECIPE.format(task="multiple_choice", path="rows.jsonl"), "utf-8")
    return folder / "recipe.toml"


def test_a_text_is_cut_to_what_its_base_sees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(chosen(tmp_path)), "train.precision=fp32", "system.threads=1"]) == 0
    assert "1 rows reach the 64 tokens of the context" in capsys.readouterr().err
    (encoded,) = tmp_path.glob("runs/store/encode-*")
    assert Columns(encoded / "columns" / "train").longest == 64 * 2  # of the two candidates


COLUMNS = (
    ("target", "chinese", "en,zh", 'data.columns.text="en"', "data.columns.target=zh"),
    ("target", "summary", "body,subject", 'data.columns.text="body"', "data.columns.target=subject"),
    ("text", "englsh", "english,remarks of the translator", 'data.columns.target="x"', "data.columns.text=english"),
)


@pytest.mark.parametrize(("ours", "written", "head", "other", "fix"), COLUMNS)
def test_the_fix_for_a_column_names_one_that_is_free(
    ours: str, written: str, head: str, other: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text(f"{head}\n" + "a long text,short\n" * 9, "utf-8")
    (tmp_path / "recipe.toml").write_text('task = "translation"\n[data]\npath = "pairs.csv"\n', "utf-8")
    assert cli.main(["run", str(tmp_path / "recipe.toml"), other, f"data.columns.{ours}={written}"]) == 3
    told = capsys.readouterr().err
    assert f'no column "{written}"' in told
    assert fix in told


IDLE = (
    ('task = "translation"', "[model]\nqueries = 4", "recipe.toml:5:1", "model.queries"),
    ('task = "language_modeling"', "[model]\npatch = 4", "recipe.toml:5:1", "model.patch"),
    ('task = "text_regression"', "[evaluate]\njudge = 'x'", "recipe.toml:5:1", "evaluate.judge"),
    ('task = "image_classification"', "[distill]\nteacher = 'x'\ntemperature = 2", "recipe.toml:6:1", "temperature"),
)


@pytest.mark.parametrize(("task", "section", "where", "key"), IDLE)
def test_a_key_without_effect_is_refused_with_its_line(
    task: str, section: str, where: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(f'{task}\n[data]\npath = "rows"\n{section}\n', "utf-8")
    assert cli.main(["run", str(tmp_path / "recipe.toml"), "--plan"]) == 2
    told = capsys.readouterr().err
    assert where in told
    assert key in told


# --- what is asked of a model -----------------------------------------------------------------------------


def asked(capsys: pytest.CaptureFixture[str], *typed: str) -> tuple[int, str]:
    """The exit code of a command, and what it says beside its answer."""
    code = cli.main([*typed])
    return code, capsys.readouterr().err


def test_an_empty_text_has_no_answer_and_a_long_one_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(bert.classifier(tmp_path / "model"))  # which sees 64 tokens
    for empty in ("", "  ", '{"text": ""}'):
        code, told = asked(capsys, "predict", model, empty)
        assert (code, "E615" in told) == (2, True), empty
    code, told = asked(capsys, "predict", model, "king " * 100)
    assert (code, told.strip()) == (0, "38 tokens at the end of the text are not read: the model sees 64 at once")
    assert asked(capsys, "predict", model, "king") == (0, "")


@pytest.mark.parametrize("choices", ["[]", '["one"]', '["one", ""]', "[1, 2]", '["one", null]'])
def test_fewer_than_two_candidates_are_refused(
    choices: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert.folder(tmp_path / "base")
    model = tmp_path / "model"
    Model.from_pretrained(tmp_path / "base").for_task("multiple_choice", 1).save_pretrained(model)
    for verb in ("predict", "explain"):
        code, told = asked(capsys, verb, str(model), f'{{"text": "why?", "choices": {choices}}}')
        assert (code, "E614" in told) == (2, True)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TOLD(tmp_path / "model")
    (tmp_path / "note.txt").write_text("a text", "utf-8")
    for name, verb in (("note.txt", "predict"), ("note.txt", "explain"), ("none.png", "predict")):
        code, told = asked(capsys, verb, str(tmp_path / "model"), str(tmp_path / name))
        assert (code, "E278" in told, name in told) == (3, True, True)


def test_rows_to_measure_on_are_looked_for_before_the_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "from_pretrained", None)
    code, told = asked(capsys, "evaluate", str(tmp_path), str(tmp_path / "none.csv"))
    assert (code, "E202" in told, "none.csv" in told) == (3, True, True)


def test_a_column_that_rows_to_measure_on_lack_is_not_looked_for_in_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bert.classifier(tmp_path / "model")
    (tmp_path / "rows.csv").write_text("remark,stars\n" + "it is the king.,king\n" * 9, "utf-8")
    (model / "danlu.toml").write_text('[data]\ncolumns = { text = "review", label = "stars" }\n', "utf-8")
    code, told = asked(capsys, "evaluate", str(model), str(tmp_path / "rows.csv"))
    assert (code, "E225" in told, "RECIPE" in told) == (3, True, False)


def test_rows_are_read_by_the_columns_that_the_model_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One broken number hides from a look at the rows what they are."""
    (tmp_path / "scores.csv").write_text("review,grade\nit is,good\n" + "it is the king.,3\n" * 9, "utf-8")
    model = tmp_path / "model"
    bert.folder(tmp_path / "base")
    base = Model.from_pretrained(tmp_path / "base")
    base.for_task("text_regression", 1, (), {"scale": [0.0, 1.0]}).save_pretrained(model)
    (model / "danlu.toml").write_text('[data]\ncolumns = { text = "review", score = "grade" }\n', "utf-8")
    code, told = asked(capsys, "evaluate", str(model), str(tmp_path / "scores.csv"))
    assert (code, "E208" in told, "scores.csv:2" in told, "'good'" in told) == (3, True, True, True)


def test_a_model_that_reads_no_text_is_not_compressed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MADE(tmp_path / "model")
    code, told = asked(capsys, "compress", str(tmp_path / "model"), "--out", str(tmp_path / "small"))
    assert (code, "E616" in told, "image_generation" in told) == (2, True, True)
    recipe = 'task = "masked_image_modeling"\n[data]\npath = "set"\n[compress]\nkind = "int8"\n'
    (tmp_path / "recipe.toml").write_text(recipe, "utf-8")
    code, told = asked(capsys, "run", str(tmp_path / "recipe.toml"))
    assert (code, "recipe.toml:4:1" in told) == (2, True)
