"""The life of a task that chooses among candidates: questions in, the place of the right one out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import AutoModel, Model, cli, files
from danlu.config import Serve
from danlu.data import store
from danlu.data.starter import recipe as first_recipe
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.serve.run import background
from danlu.stages.prove import prove
from tests import tiny_task
from tests.tiny_life import sentences

RECIPE = tiny_task.recipe("multiple_choice", "jsonl", batch_tokens=512)


def rows(start: int, count: int) -> list[dict[str, Any]]:
    """The candidate that speaks of a ship is right; some questions have three."""
    made = []
    for i, text in enumerate(sentences(start + count)):
        names = ["king", "queen", "ship"][2 - i % 2 - 1 if i % 3 else 0 :][:3]
        names = names[i % len(names) :] + names[: i % len(names)]
        made.append({"text": text, "choices": [f"It is the {name}." for name in names], "label": names.index("ship")})
    return made[start:]


def project(folder: Path) -> Life:
    return tiny_task.project(folder, RECIPE, tiny_task.lines(rows(0, 200)), tiny_task.lines(rows(200, 50)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("choose")).run(Silent()).folders)


def test_the_word_that_makes_a_candidate_right_explains_it(folders: dict[str, Path]) -> None:
    model, right = AutoModel.from_pretrained(folders["pretrain"]), 0
    for row in rows(200, 10):
        found = model.explain({"text": row["text"], "choices": row["choices"]})
        scores = found.scores["gradients"]
        best = max(range(len(scores)), key=scores.__getitem__)
        right += found.words[best].text.strip() == "ship" and found.name == str(row["label"])
    assert right >= 8, right


def test_it_learns_what_makes_a_candidate_right(folders: dict[str, Path]) -> None:
    told = files.read_json(folders["evaluate"] / "metrics.json")
    assert told["models"]["base"]["accuracy"] > 0.9, "about half is chance"
    assert "overlap" in told["models"]
    assert told["intervals"]["models"]["base"]["accuracy"][0] > 0.5


def test_it_answers_alike_everywhere_and_scores_each_candidate_alone(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, asked = Model.from_pretrained(folders["pretrain"]), rows(200, 3)
    given = [{name: row[name] for name in ("text", "choices")} for row in asked]
    said = model.judge(given)
    assert [answer["choice"] for answer in said] == ["It is the ship."] * 3
    for row, answer in zip(given, said, strict=True):
        alone = []
        for each in row["choices"]:
            ids, kinds = model.processor.joined(row["text"], each)
            alone.append(model.net({"input_ids": torch.tensor([ids]), "type_ids": torch.tensor([kinds])})[0, 0])
        assert answer["shares"] == pytest.approx(torch.stack(alone).softmax(0).tolist(), abs=1e-5)
    assert cli.main(["predict", str(folders["pretrain"]), json.dumps(given[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shares"] == pytest.approx(said[0]["shares"], abs=1e-5)
    with background(model, "tiny", Serve(port=0)) as url:
        assert tiny_task.asked(url, given[0])["predictions"][0]["choice"] == "It is the ship."


def test_its_training_is_exact(tmp_path: Path) -> None:
    certificate = prove(project(tmp_path).loaded, Silent())
    assert certificate.error() is None, certificate.render()


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "choice1": "he", "choice2": "she", "label": 1},
        {"question": "Who?", "A": "he", "B": "she", "answer": "B"},
        {"premise": "Who?", "options": ["he", "she"], "label": "she"},
        {"question": "Who?", "choices": {"text": ["he", "she"], "label": ["A", "B"]}, "answerKey": "B"},
    ],
)
def test_raw_files_of_many_forms_are_recognised(tmp_path: Path, row: dict[str, Any]) -> None:
    lines = [json.dumps({name: f"{value} {n}" if value == "Who?" else value for name, value in row.items()})
             for n in range(30)]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    written, count = first_recipe(tmp_path / "rows.jsonl", Path("rows.jsonl"))
    (tmp_path / "recipe.toml").write_text(written, "utf-8")
    assert 'task = "multiple_choice"' in written
    folder = Life(load_recipe(tmp_path / "recipe.toml", ())).run(Silent(), "prepare").folders["prepare"]
    assert sum(files.read_json(folder / "funnel.json")["splits"].values()) == count == 30


@pytest.mark.parametrize("row", [{"choices": ["one"], "label": 0}, {"choices": ["one", ""], "label": 0},
                                 {"choices": ["one", "two"], "label": 2}, {"choices": "one", "label": 0}])  # fmt: skip
def test_a_candidate_or_an_answer_that_is_missing_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    life = project(tmp_path)
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "Who?"} | row) + "\n")
    error = tiny_task.refused(life, "prepare")
    assert error.code == "E208"
    assert "train.jsonl:201" in error.where


def test_questions_with_the_same_candidates_are_held_out_together(tmp_path: Path) -> None:
    pairs = [{"text": f"Why {word} {n}?", "choices": [f"It rained on day {n}.", f"The sun shone on day {n}."][::way],
              "label": 0} for n in range(60) for word, way in (("wet", 1), ("dry", -1))]  # fmt: skip
    names = [{"text": f"Is {n} even?", "choices": ["yes", "no"], "label": n % 2} for n in range(60)]
    life = tiny_task.project(tmp_path, RECIPE.replace("valid = 0.1", "valid = 0.3"),
                             tiny_task.lines(pairs + names), tiny_task.lines(rows(0, 9)))  # fmt: skip
    found = dict(life.run(Silent(), "prepare").folders)["prepare"] / "rows"
    kept = {name: [json.loads(row["choices"])[1:] for row in store.read(found, name)] for name in ("train", "valid")}
    sides = {name: {frozenset(each) for each in rows if "yes" not in each} for name, rows in kept.items()}
    assert not sides["train"] & sides["valid"]
    assert all(len(each) > 5 for each in sides.values())
    assert all(["yes", "no"] in each for each in kept.values())


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [("data.columns.text=nope", "E201", "nope"), ("model.arch=gpt2", "E106", "do not go together")],
)
def test_what_cannot_be_chosen_from_is_said_before_anything_slow(
    change: str, code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that only some rows need, and a form without a head for candidates."""
    rows = [{"text": f"how is {n}", "choices": ["so", f"not {n}"], "label": "0"} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "recipe.toml").write_text('task = "multiple_choice"\n[data]\npath = "rows.jsonl"\n', "utf-8")
    monkeypatch.setattr("danlu.stages.prepare.run", lambda context: pytest.fail("it was begun"))
    with pytest.raises(UserError) as refused:
        Life(load_recipe(tmp_path / "recipe.toml", [change])).run(Silent())
    assert refused.value.code == code
    assert said in str(refused.value)
