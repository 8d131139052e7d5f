"""Whole lives of tasks whose answer to a text is a number, or any number of labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from danlu import Model, cli, files
from danlu.data.starter import recipe as first_recipe
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.metrics import multilabel
from danlu.recipe import load_recipe
from tests import tiny_task
from tests.tiny_life import sentences

WORTH = {"king": 3.0, "queen": -1.5, "ship": 0.25}
NUMBERS, SETS = (
    tiny_task.recipe(task, "jsonl", steps=120, train="dropout = 0.0")
    for task in ("text_regression", "multi_label_classification")
)


def numbers(start: int, count: int) -> list[dict[str, Any]]:
    """Sentences whose number one word decides."""
    names = list(WORTH)
    rows = [{"text": f"{text} It is the {names[i % 3]}.", "score": WORTH[names[i % 3]] + i % 2 / 50}
            for i, text in enumerate(sentences(start + count))]  # fmt: skip
    return rows[start:]


def sets(start: int, count: int) -> list[dict[str, Any]]:
    """Sentences that have a label for each of three words in them."""
    rows = []
    for i, text in enumerate(sentences(start + count)):
        there = [name for place, name in enumerate(WORTH) if i * 5 % 7 >> place & 1]
        rows.append({"text": f"{text} With {' and '.join(there) or 'nobody'}.", "labels": there})
    return rows[start:]


def project(folder: Path, recipe: str) -> Life:
    make = numbers if recipe == NUMBERS else sets
    return tiny_task.project(folder, recipe, tiny_task.lines(make(0, 240)), tiny_task.lines(make(240, 60)))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("scored"), NUMBERS).run(Silent()).folders)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("labelled"), SETS).run(Silent()).folders)


def test_a_base_of_another_scale_is_refused(scored: dict[str, Path], tmp_path: Path) -> None:
    base = f'base = "{scored["pretrain"].as_posix()}"'
    based = NUMBERS.replace("[tokenizer]\nvocab_size = 300\n", "").replace("depth = 1", base)

    def life(times: float) -> Life:
        rows = [row | {"score": times * row["score"]} for row in numbers(0, 60)]
        return tiny_task.project(tmp_path, based, tiny_task.lines(rows), tiny_task.lines(rows[:20]))

    life(1.2).run(Silent(), "encode")
    with pytest.raises(UserError) as problem:
        life(50).run(Silent(), "encode")
    assert problem.value.code == "E314"


def test_a_number_is_learned_and_given_in_its_own_units(
    scored: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = files.read_json(scored["evaluate"] / "metrics.json")
    assert told["models"]["base"]["pearson"] > 0.8
    assert told["models"]["bag"]["pearson"] > 0.95
    mean, deviation = files.read_json(scored["encode"] / "tokens.json")["learned"]["scale"]
    truth = [row["score"] for row in numbers(0, 240)]
    assert mean == pytest.approx(np.mean(truth), abs=0.1), "a tenth of the rows is held out"
    assert deviation == pytest.approx(np.std(truth), abs=0.1)
    rows = numbers(240, 60)
    text = rows[0]["text"]
    assert cli.main(["predict", str(scored["pretrain"]), text, "--json"]) == 0
    said = Model.from_pretrained(scored["pretrain"]).judge([{"text": row["text"]} for row in rows])
    assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(said[0]["score"], abs=1e-5)
    found, truth = [answer["score"] for answer in said], [row["score"] for row in rows]
    rmse = np.sqrt(np.mean(np.square(np.subtract(found, truth))))
    assert rmse == pytest.approx(told["models"]["base"]["rmse"], rel=0.02), "as measured, in the units of the rows"
    assert rmse < 0.7 * np.std(truth)


def test_labels_are_learned_each_for_itself(labelled: dict[str, Path]) -> None:
    told = files.read_json(labelled["evaluate"] / "metrics.json")
    assert told["models"]["base"]["micro_f1"] > 0.9
    assert told["models"]["bag"]["micro_f1"] > 0.9
    assert {row["label"] for row in told["each"]} == set(WORTH)
    assert told["comparisons"][0]["rows"] == 60
    model = Model.from_pretrained(labelled["pretrain"])
    rows = sets(240, 60)
    said = model.judge([{"text": row["text"]} for row in rows])
    exact = np.mean([set(a["labels"]) == set(row["labels"]) for a, row in zip(said, rows, strict=True)])
    assert exact == pytest.approx(told["models"]["base"]["subset_accuracy"], abs=0.03), "the rows of the test file"
    assert all(0 <= share <= 1 for share in said[0]["scores"].values())


def test_a_surer_threshold_says_less(labelled: dict[str, Path], tmp_path: Path) -> None:
    life = project(tmp_path, SETS + "[options]\nthreshold = 0.999\n")
    folder = life.run(Silent(), "pretrain").folders["pretrain"]
    strict, usual = Model.from_pretrained(folder), Model.from_pretrained(labelled["pretrain"])
    rows = sets(240, 60)
    said = [sum(len(each["labels"]) for each in model.judge([{"text": r["text"]} for r in rows]))
            for model in (strict, usual)]  # fmt: skip
    assert said[0] < said[1]


def test_more_labels_than_fit_into_one_column_are_kept_apart() -> None:
    from danlu import tasks
    from tests.train.test_loss_rule import words

    names = [f"label {place:02d}" for place in range(64)]
    kind = tasks.load("multi_label_classification")
    task = kind(words(), names, 24)
    chosen = [0, 29, 30, 31, 59, 60, 63]
    batch = task.processor.collate([task.encode({"text": "a fox", "labels": json.dumps([names[n] for n in chosen])})])
    import torch

    class Fixed(torch.nn.Module):
        def forward(self, batch: object) -> torch.Tensor:
            return torch.zeros(1, 64)

    _, truth = task._known(Fixed(), batch)
    assert truth[0].nonzero().flatten().tolist() == chosen


def test_figures_of_sets_are_those_of_scikit_learn() -> None:
    random = np.random.Generator(np.random.PCG64(4))
    truth = random.random((300, 6)) < 0.3
    found = np.where(random.random((300, 6)) < 0.8, truth, random.random((300, 6)) < 0.3)
    made = multilabel.sample(truth, found).figures()
    for average in ("micro", "macro"):
        wanted = oracle.f1_score(truth, found, average=average, zero_division=0)
        assert float(made[f"{average}_f1"]) == pytest.approx(wanted, abs=1e-12)
    assert float(made["subset_accuracy"]) == pytest.approx(oracle.accuracy_score(truth, found), abs=1e-12)
    assert made["f1"] == pytest.approx(oracle.f1_score(truth, found, average=None, zero_division=0), abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "task", "columns"),
    [
        ("sentence1,sentence2,score\n" + "".join(f"words {n} here,other {n} there,{n % 11 / 2}\n" for n in range(60)),
         "text_regression", {"text": "sentence1", "score": "score", "text_pair": "sentence2"}),
        ("review,rating\n" + "".join(f"this is review {n},{n % 50}\n" for n in range(200)),
         "text_regression", {"text": "review", "score": "rating"}),
        ("title,keywords\n" + "".join(f"a title of number {n},{'abc'[n % 3]}|{'de'[n % 2]}\n" for n in range(60)),
         "multi_label_classification", {"text": "title", "labels": "keywords"}),
    ],
)  # fmt: skip
def test_raw_files_of_them_are_recognised(tmp_path: Path, rows: str, task: str, columns: dict[str, str]) -> None:
    (tmp_path / "rows.csv").write_text(rows, "utf-8")
    written, _ = first_recipe(tmp_path / "rows.csv", Path("rows.csv"))
    (tmp_path / "recipe.toml").write_text(written, "utf-8")
    loaded = load_recipe(tmp_path / "recipe.toml").recipe
    assert loaded.task == task
    assert {ours: loaded.data.columns.get(ours, ours) for ours in columns} == columns


@pytest.mark.parametrize(
    ("rows", "task", "code"),
    [
        ('{"text": "a", "score": NaN}\n{"text": "b", "score": 1}\n', "text_regression", "E208"),
        ('{"text": "a", "score": "high"}\n{"text": "b", "score": 1}\n', "text_regression", "E208"),
        ('{"text": "a", "score": 2}\n{"text": "b", "score": 2}\n', "text_regression", "E263"),
        ('{"text": "a", "labels": 3}\n{"text": "b", "labels": ["x"]}\n', "multi_label_classification", "E208"),
        ('{"text": "a", "labels": ["x"]}\n{"text": "b", "labels": ["x"]}\n', "multi_label_classification", "E251"),
        ('{"text": "a", "labels": []}\n{"text": "b", "labels": ""}\n', "multi_label_classification", "E267"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: str, task: str, code: str) -> None:
    life = tiny_task.project(tmp_path, NUMBERS if task == "text_regression" else SETS, rows, "")
    assert tiny_task.refused(life, "encode").code == code
