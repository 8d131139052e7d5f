"""The life of a table: raw file in, a class or a number over HTTP out; held-out rows teach nothing."""

import json
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from danlu import AutoModel, Model, cli, files
from danlu.config import Serve
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.serve.run import background
from danlu.stages.prove import prove
from tests import tiny_task

TRAIN = """
[model]
depth = 1
width = 32

[train]
steps = 150
lr = 0.01
optimizer = "adamw"
batch_tokens = 96
precision = "fp32"
dropout = 0.0

[system]
threads = 1
"""


def rows(count: int, target: str, start: int = 0, **extra: str) -> str:
    """Rows of which a number and a category decide: the class is "yes" where they add up to more than one."""
    random = np.random.Generator(np.random.PCG64(start + 1))
    lines = ["age,city,pay," + target]
    for _ in range(count):
        age, city = float(random.normal(40, 10)), str(random.choice(["Rome", "Oslo", "Lima"]))
        total = (age - 40) / 10 + {"Rome": 0.0, "Oslo": 1.5, "Lima": -1.5}[city]
        learned = f"{10 * total:.3f}" if target == "score" else "yes" if total > 0 else "no"
        pay = "" if random.random() < 0.2 else f"{random.integers(1, 99)}"
        lines.append(f"{age:.2f},{city},{pay},{learned}")
    return "\n".join(lines) + "\n"


def project(folder: Path, target: str) -> Life:
    task = "tabular_regression" if target == "score" else "tabular_classification"
    (folder / "train.csv").write_text(rows(400, target), "utf-8")
    (folder / "test.csv").write_text(rows(100, target, 5), "utf-8")
    data = '[data]\npath = "train.csv"\ntest = "test.csv"\nsplit = { valid = 0.1, test = 0.0 }\n'
    (folder / "recipe.toml").write_text(f'task = "{task}"\n{data}{TRAIN}', "utf-8")
    return Life(load_recipe(folder / "recipe.toml", ()))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("classes"), "label").run(Silent()).folders)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("numbers"), "score").run(Silent()).folders)


def test_it_learns_a_class_beside_a_linear_model(classes: dict[str, Path]) -> None:
    told = files.read_json(classes["evaluate"] / "metrics.json")
    assert told["split"] == "test"
    assert told["models"]["base"]["accuracy"] > 0.9
    assert told["models"]["linear"]["accuracy"] > 0.9
    assert told["comparisons"][0]["rows"] == 100


def test_it_learns_a_number_and_gives_it_in_its_own_units(numbers: dict[str, Path]) -> None:
    told = files.read_json(numbers["evaluate"] / "metrics.json")
    base, linear = told["models"]["base"], told["models"]["linear"]
    assert base["spearman"] > 0.97
    assert linear["spearman"] > 0.99
    assert base["rmse"] < 4
    _, deviation = files.read_json(numbers["encode"] / "tokens.json")["learned"]["scale"]
    assert base["rmse"] == pytest.approx(np.sqrt(base["loss"]) * deviation)
    low, high = told["intervals"]["models"]["base"]["rmse"]
    assert low <= base["rmse"] <= high
    said = Model.from_pretrained(numbers["pretrain"]).judge([{"record": {"age": 60, "city": "Oslo", "pay": 5}}])[0]
    assert said["score"] == pytest.approx(35, abs=8)


def test_a_number_is_explained_by_the_columns_that_make_it(numbers: dict[str, Path]) -> None:
    """Ten times the age's deviation from 40, and 15 for Oslo but -15 for Lima; the pay says nothing."""
    model = AutoModel.from_pretrained(numbers["pretrain"])
    parts = {}
    for city in ("Oslo", "Lima"):
        found = model.explain({"age": 52.0, "city": city, "pay": 50})
        assert [word.text.strip() for word in found.words] == ["age = 52", f"city = {city}", "pay = 50"]
        parts[city] = found.scores["gradients"]
    assert parts["Oslo"][0] == pytest.approx(12, abs=4)
    assert parts["Oslo"][1] - parts["Lima"][1] == pytest.approx(30, abs=8)
    assert abs(parts["Oslo"][2]) < 4
    with pytest.raises(UserError, match="E608"):
        model.explain(3)


def test_rows_are_answered_alike_by_command_and_server(
    classes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"age": 75, "city": "Oslo", "pay": None}
    assert cli.main(["predict", str(classes["pretrain"]), json.dumps(row), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["label"], said["missing"]) == ("yes", ["pay"])
    model = Model.from_pretrained(classes["pretrain"])
    with background(model, "tiny", Serve(port=0)) as url:
        served = tiny_task.asked(url, {"record": [row, {"age": 20, "city": "Atlantis"}]})["predictions"]
        assert served[0]["score"] == pytest.approx(said["score"], abs=1e-6)
        assert (served[1]["label"], served[1]["unknown"], served[1]["missing"]) == ("no", ["city"], ["pay"])
        for wrong, word in (({"age": "old"}, "age"), ({"town": "Rome"}, "town")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                tiny_task.asked(url, {"record": wrong})
            assert refused.value.code == 400
            assert word in json.load(refused.value)["error"]["message"]


def test_statistics_come_from_rows_to_train_on_alone(tmp_path: Path, classes: dict[str, Path]) -> None:
    """Other test rows, and other numbers in them, leave table, columns to train on and weights as they are."""
    life = project(tmp_path, "label")
    (tmp_path / "test.csv").write_text("age,city,pay,label\n" + "1e5,Paris,1,yes\n9,Nowhere,,no\n" * 20, "utf-8")
    folders = life.run(Silent(), "pretrain").folders
    for name in ("table.json", "columns/train/values.00000.bin", "columns/valid/values.00000.bin"):
        assert files.sha256(folders["encode"] / name) == files.sha256(classes["encode"] / name), name
    both = [files.sha256(each["pretrain"] / "model.safetensors") for each in (folders, classes)]
    assert both[0] == both[1]


def test_its_training_is_exact(tmp_path: Path) -> None:
    certificate = prove(project(tmp_path, "label").loaded, Silent())
    assert certificate.error() is None, certificate.render()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("a,b,label\n1,x,one\n2,y,one\n3,x,one\n", "E251"),
        ("a,b,kind\n1,x,one\n2,y,two\n3,x,one\n", "E201"),
        ("a,b,label\n1,x,\n2,y,two\n3,x,one\n", "E208"),
        ("a,b,label\n" + "".join(f"{n % 7},x{n % 2},k{n % 2}\n" for n in range(60)) + "abc,x1,k1\n", "E264"),
        ("a,b,score\n1,x,2\n2,y,nan\n3,x,4\n", "E208"),
        ("a,b,score\n1,x,2\n2,y,2\n3,x,2\n", "E263"),
        ("a,b,score\n1,x,2\n2,y,abc\n3,x,4\n", "E208"),
    ],
)
def test_bad_rows_are_named_before_anything_slow(tmp_path: Path, content: str, code: str) -> None:
    task = "tabular_regression" if ",score\n" in content else "tabular_classification"
    (tmp_path / "rows.csv").write_text(content, "utf-8")
    data = '[data]\npath = "rows.csv"\nsplit = { valid = 0.0, test = 0.0 }\n'
    (tmp_path / "recipe.toml").write_text(f'task = "{task}"\n{data}{TRAIN}', "utf-8")
    with pytest.raises(UserError) as caught:
        Life(load_recipe(tmp_path / "recipe.toml", ())).run(Silent(), "encode")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.context", "64"), ("model.arch", "gpt"), ("model.heads", "2"), ("tokenizer.vocab_size", "500")],
)
def test_keys_of_text_are_refused(tmp_path: Path, key: str, value: str) -> None:
    life = project(tmp_path, "label")
    with pytest.raises(UserError):
        load_recipe(life.loaded.path, [f"{key}={value}"])


def test_plan_forecasts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    life = project(tmp_path, "label")
    assert cli.main(["run", str(life.loaded.path), "--plan", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 5
