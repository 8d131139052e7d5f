"""A whole life of a classifier: rows of three classes in, answers over HTTP out, the folder opened by transformers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from danlu import Model, cli, files
from danlu.config import Serve
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.serve.engine import Engine
from danlu.serve.run import background
from danlu.stages.compress import compress_folder
from danlu.stages.evaluate import measure, on_data
from tests import tiny_task
from tests.api import bert
from tests.tiny_life import sentences

LABELS = ["king", "queen", "ship"]
RECIPE = tiny_task.recipe("text_classification", "csv")


def rows(start: int, count: int) -> str:
    """A sentence and what it ends with: a class that one word decides."""
    lines = [f"{text} It is the {LABELS[i % 3]}." for i, text in enumerate(sentences(start + count))]
    return "text,label\n" + "".join(f'"{line}",{LABELS[i % 3]}\n' for i, line in enumerate(lines) if i >= start)


def project(folder: Path, recipe: str = RECIPE) -> Life:
    return tiny_task.project(folder, recipe, rows(0, 240), rows(240, 60))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("classify")).run(Silent()).folders)


def test_it_learns_what_one_word_tells(folders: dict[str, Path]) -> None:
    told = files.read_json(folders["evaluate"] / "metrics.json")
    assert told["split"] == "test"
    assert told["models"]["base"]["accuracy"] > 0.9, "a third is chance"
    assert told["models"]["bag"]["accuracy"] > 0.9


def test_phrases_learn_it_too(tmp_path: Path) -> None:
    recipe = RECIPE.replace("[model]", '[model]\narch = "textcnn"')
    assert recipe != RECIPE
    recipe = "\n".join(line for line in recipe.splitlines() if not line.startswith(("depth", "heads")))
    made = project(tmp_path, recipe).run(Silent()).folders
    assert files.read_json(made["evaluate"] / "metrics.json")["models"]["base"]["accuracy"] > 0.9
    model, text = Model.from_pretrained(made["pretrain"]), "The old fool keeps a small book. It is the queen."
    alone = model.judge([{"text": text}])[0]
    among = model.judge([{"text": "A ship."}, {"text": text}, {"text": text * 2}])[1]
    assert alone["label"] == "queen" and among["scores"] == pytest.approx(alone["scores"], abs=1e-5)
    smaller = compress_folder(made["pretrain"], tmp_path / "small", "cpu")
    assert smaller and Model.from_pretrained(tmp_path / "small").judge([{"text": text}])[0]["label"] == "queen"


def test_figures_say_how_sure_they_are_and_agree_with_the_training_loop(folders: dict[str, Path]) -> None:
    told = files.read_json(folders["evaluate"] / "metrics.json")
    model, found, ends = Model.from_pretrained(folders["pretrain"]), told["models"], told["intervals"]["models"]
    streamed = measure(model, folders["encode"], model.task)
    assert {name: found["base"][name] for name in streamed} == pytest.approx(streamed)
    for role in ("base", "bag"):
        assert {"accuracy", "macro_f1", "mcc", "macro_precision", "macro_recall"} <= set(ends[role])
        assert ends[role]["accuracy"][0] <= found[role]["accuracy"] <= ends[role]["accuracy"][1]
    assert [row["label"] for row in told["each"]] == LABELS == told["confusion"]["labels"]
    assert all(row["f1_low"] <= row["f1"] <= row["f1_high"] for row in told["each"])
    assert sum(map(sum, told["confusion"]["matrix"])) == 60


def test_the_bag_takes_the_n_grams_it_is_asked_for_and_rows_are_shown(tmp_path: Path, folders: dict[str, Path]) -> None:
    shutil.copytree(folders["encode"].parents[1], tmp_path / "runs")
    for name in ("train.csv", "test.csv"):
        shutil.copy(folders["encode"].parents[2] / name, tmp_path / name)
    tables = []
    for order, shown in ((1, 2), (3, 5), (0, 0)):
        asked = RECIPE + f"[evaluate]\nngram = {order}\nsamples = {shown}\n"
        (tmp_path / "recipe.toml").write_text(asked, "utf-8")
        folder = Life(load_recipe(tmp_path / "recipe.toml", ())).run(Silent(), "evaluate").folders["evaluate"]
        tables.append(files.read_json(folder / "metrics.json"))
        rows = files.read_json(folder / "samples.json")
        assert len(rows) == shown
        assert all("It is the" in row["prompt"] and row["text"].split(" ")[0] in LABELS for row in rows)
    assert tables[0]["models"]["bag"] != tables[1]["models"]["bag"]
    assert "bag" not in tables[2]["models"]


def test_two_models_are_told_apart_on_the_same_rows(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, RECIPE.replace("steps = 60", "steps = 2")).run(Silent(), "pretrain")
    (tmp_path / "rows.csv").write_text(rows(300, 40), "utf-8")
    weak, strong = str(tmp_path), str(folders["pretrain"])
    asked = ["evaluate", weak, strong, str(tmp_path / "rows.csv")]
    assert cli.main([*asked, "--page", str(tmp_path / "page.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found, better = told["comparison"], told["models"][strong]["accuracy"] - told["models"][weak]["accuracy"]
    assert better > 0.2
    assert (found["only_second"] - found["only_first"]) / found["rows"] == pytest.approx(better)
    assert found["p"] < 0.05
    assert len(told["flips"]) == min(found["only_second"], 20) + min(found["only_first"], 20)
    for flip in told["flips"]:
        assert (flip["second"].split(" ")[0] == flip["wanted"]) == flip["won"]
    assert all(word in (tmp_path / "page.html").read_text("utf-8") for word in ("McNemar", told["flips"][0]["given"]))
    assert cli.main(asked) == 0
    assert "McNemar" in capsys.readouterr().out
    assert cli.main(["evaluate", weak, strong, weak, str(tmp_path / "rows.csv")]) == 2


def test_it_answers_alike_everywhere(folders: dict[str, Path]) -> None:
    model = Model.from_pretrained(folders["pretrain"])
    texts = [f"The old fool keeps a small book. It is the {label}." for label in LABELS]
    said = model.judge([{"text": text} for text in texts])
    assert [answer["label"] for answer in said] == LABELS
    assert model.predict(texts[0]) == pytest.approx(said[0] | {"scores": pytest.approx(said[0]["scores"])})
    with background(model, "tiny", Serve(port=0)) as url:
        served = tiny_task.asked(url, {"text": texts})
    assert served["model"] == "tiny"
    for ours, theirs in zip(said, served["predictions"], strict=True):
        assert ours["label"] == theirs["label"]
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-6)


def test_transformers_opens_the_folder(folders: dict[str, Path]) -> None:
    folder = folders["pretrain"]
    ours, theirs = (
        Model.from_pretrained(folder),
        transformers.AutoModelForSequenceClassification.from_pretrained(folder),
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["The old king sees a tall queen. It is the ship.", "No."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = theirs.eval()(**batch).logits
        made = ours.processor.collate([ours.task.encode({"text": text, "label": None}) for text in texts])
        found = ours.net(made)
    assert made["input_ids"].equal(batch["input_ids"])
    assert found.std() > 0.1
    assert torch.allclose(found, wanted, atol=1e-5)
    assert [theirs.config.id2label[i] for i in range(3)] == LABELS


def test_it_is_measured_on_other_rows_and_stays_itself_in_int8(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("text,label\n" + "It is the king.,king\nIt is the queen.,queen\n" * 5, "utf-8")
    assert on_data(folders["pretrain"], str(tmp_path / "two.csv")).last.scores["accuracy"] == 1.0  # type: ignore[union-attr]
    (tmp_path / "other.csv").write_text("text,label\n" + "It is the king.,cook\nNo.,king\n" * 5, "utf-8")
    with pytest.raises(UserError) as caught:
        on_data(folders["pretrain"], str(tmp_path / "other.csv"))
    assert caught.value.code == "E313"
    compress_folder(folders["pretrain"], tmp_path / "int8")
    assert Model.from_pretrained(tmp_path / "int8").predict("It is the queen.")["label"] == "queen"


def test_a_text_to_continue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.sample"):
        project(tmp_path, RECIPE.replace("steps = 60", 'steps = 60\nsample = "The"'))


def test_it_does_not_pretend_to_chat(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError) as caught:
        Engine(Model.from_pretrained(folders["pretrain"]))
    assert caught.value.code == "E606"


@pytest.mark.parametrize(
    ("train", "test", "code"),
    [
        ("text,label\na text,one\nanother,one\n", "text,label\na third,one\n", "E251"),
        ("text,label\na text,one\nanother,two\n", "text,label\na third,three\n", "E252"),
        ("text,kind\na text,one\nanother,two\n", "text,kind\na third,one\n", "E201"),
        ("text,label\na text,\nanother,two\n", "text,label\na third,two\n", "E208"),
    ],
)
def test_labels_that_cannot_be_learned_are_named(tmp_path: Path, train: str, test: str, code: str) -> None:
    life = tiny_task.project(tmp_path, RECIPE.replace("valid = 0.1", "valid = 0.0"), train, test)
    assert tiny_task.refused(life, "encode").code == code


def test_held_out_rows_stay_and_their_copies_go(tmp_path: Path) -> None:
    life = tiny_task.project(tmp_path, RECIPE, rows(0, 60), rows(30, 60))
    folder = life.run(Silent(), "prepare").folders["prepare"]
    funnel = files.read_json(folder / "funnel.json")
    assert funnel["splits"]["test"] == 60
    assert funnel["splits"]["train"] + funnel["splits"]["valid"] == 30


def test_a_head_that_another_library_trained_keeps_its_labels(tmp_path: Path) -> None:
    """A recipe whose base is such a folder: fewer labels are fine, others are refused, numbered ones get names."""
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    bert.folder(tmp_path / "named", "BertForSequenceClassification", **labels)
    bert.folder(tmp_path / "numbered", "BertForSequenceClassification", num_labels=2)
    found = {}
    for base, wanted in (("named", "king queen"), ("named", "king cook"), ("numbered", "king cook")):
        one, two = wanted.split()
        lines = [f'"It is the {each}, number {i}.",{each}' for i in range(20) for each in (one, two)]
        (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(lines), "utf-8")
        (tmp_path / "recipe.toml").write_text(
            f'task = "text_classification"\ndata.path = "train.csv"\nmodel.base = "{base}"\n'
            'train = { steps = 1, precision = "fp32" }\nsystem.threads = 1\n', "utf-8"
        )  # fmt: skip
        life = Life(load_recipe(tmp_path / "recipe.toml", ()))
        try:
            folders = life.run(Silent(), life.nodes[2].name).folders
            found[base, wanted] = list(Model.from_pretrained(folders[life.nodes[2].name]).task.labels)
        except UserError as error:
            found[base, wanted] = error.code
    assert found == {
        ("named", "king queen"): LABELS,
        ("named", "king cook"): "E313",
        ("numbered", "king cook"): ["cook", "king"],
    }
