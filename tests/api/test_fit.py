"""`fit`, `evaluate`, `predict`: the loop of `danlu run`, reached from Python, on rows of every kind."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import danlu
from danlu import AutoModel, BertForSequenceClassification, files
from danlu.errors import UserError
from danlu.graph import Life, Silent
from danlu.model import Model
from danlu.recipe import load_recipe
from danlu.stages.evaluate import on_data
from tests.api import bert
from tests.api.bert import LABELS, QUICK

pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert.folder(tmp_path_factory.mktemp("api") / "bert")


@pytest.fixture(scope="module")
def fitted(base: Path) -> Any:
    """A model that was taught; no test changes it."""
    model = BertForSequenceClassification.from_pretrained(base)
    model.fit(bert.rows(), **QUICK)
    return model


def test_a_model_knows_whether_it_began_with_the_weights_of_a_folder(fitted: Any, base: Path, tmp_path: Path) -> None:
    """Also once it has learned more, and where first weights were only saved."""
    assert fitted.begins == "pretrained"
    fresh = BertForSequenceClassification.from_config(base, num_labels=3)
    fresh.save_pretrained(tmp_path / "fresh")
    assert fresh.begins == "random"


def test_first_weights_are_trained_as_a_run_pretrains_and_then_tuned(base: Path) -> None:
    model = BertForSequenceClassification.from_config(base, num_labels=3)
    first, second = (model.fit(bert.rows(), **(QUICK | {"lr": "auto"})).plan for _ in range(2))
    assert (first["optimizer"], first["lr"], model.begins) == ("muon", 0.03, "trained")
    assert second["optimizer"] == "adamw" and second["lr"] < 2e-3


def weights(model: Any) -> str:
    return files.tensors_hash(model.net.state_dict())


# --- the three lines -------------------------------------------------------------------------------------


def test_three_lines(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Those of the article, but for the import, where the name is a folder's."""
    train_data = bert.jsonl(tmp_path / "train.jsonl", bert.rows(60))
    test_data = bert.jsonl(tmp_path / "test.jsonl", bert.rows(30, 60))
    (tmp_path / "bert-base-uncased").symlink_to(base)
    monkeypatch.chdir(tmp_path)
    lines = """
model = transformers.BertForSequenceClassification.from_pretrained("bert-base-uncased")
model.fit(train_data, epochs=3)
model.evaluate(test_data)
"""
    exec(lines, {"transformers": danlu, "train_data": train_data, "test_data": test_data})  # noqa: S102
    said = capsys.readouterr().err.splitlines()
    assert "60 rows read: 58 to train on, 2 held out" in said[0]
    assert "accuracy" in said[-1] and "(30 rows)" in said[-1]
    assert len(said) < 16


def test_it_learns_and_says_how_well(fitted: Any) -> None:
    report = fitted.evaluate(bert.rows(30, 120), quiet=True)
    assert report["accuracy"] > 0.9, "a third is chance"
    assert len(report.rows) == 30
    right = sum(report.confusion[label][label] for label in LABELS)
    assert report["accuracy"] == pytest.approx(right / 30)
    assert len(report.errors()) == 30 - right
    assert {each["label"] for each in report.each} == set(LABELS)
    assert "accuracy" in repr(report)


def test_what_is_predicted_is_what_transformers_predicts_of_the_folder(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "out")
    texts = [row["text"] for row in bert.rows(20, 150)] + ["The king.", "No"]
    ours = fitted.predict(texts)
    theirs = transformers.pipeline("text-classification", model=str(tmp_path / "out"))(texts)
    assert [each["label"] for each in ours] == [each["label"] for each in theirs]
    assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in theirs], abs=1e-5)
    assert fitted.predict(texts[0])["score"] == pytest.approx(ours[0]["score"], abs=1e-6)
    again = AutoModel.from_pretrained(tmp_path / "out")
    assert type(again) is BertForSequenceClassification
    assert [each["score"] for each in again.predict(texts)] == [each["score"] for each in ours]
    assert files.damage(tmp_path / "out") == []


def test_pairs_are_read_as_pairs(base: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    rows = [{**row, "text_pair": row["text"], "text": f"It is the {row['label']}."} for row in bert.rows(60)]
    model.fit(rows, **QUICK)
    short, long = rows[0]["text"], rows[0]["text_pair"]
    first, second = model.predict([(short, long), (long, short)])
    assert first["scores"] != second["scores"], "which of them stands first makes a difference"
    assert model.evaluate(rows, quiet=True)["accuracy"] > 0.9
    read = model.evaluate(rows, quiet=True).rows
    assert {(row["text"], row["text_pair"]) for row in read} == {(row["text"], row["text_pair"]) for row in rows}


# --- exactness -------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights(base: Path) -> None:
    found = []
    for seed in (3, 3, 4):
        model = BertForSequenceClassification.from_pretrained(base)
        model.fit(bert.rows(60), **{**QUICK, "steps": 5, "seed": seed})
        found.append(weights(model))
    assert found[0] == found[1] != found[2]


def test_a_recipe_comes_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    """The one that `fit` writes, run by the life of a recipe."""
    model = BertForSequenceClassification.from_pretrained(base)
    history = model.fit(bert.rows(60), folder=tmp_path / "fit", **{**QUICK, "steps": 8, "optimizer": "sgd", "lr": 0.3})
    folders = Life(load_recipe(tmp_path / "fit" / "recipe.toml")).run(Silent(), "finetune").folders
    assert weights(Model.from_pretrained(folders["finetune"])) == weights(model)
    logged = (folders["finetune"] / "metrics.jsonl").read_text("utf-8")
    assert f'"loss": {history["loss"][-1]}' in logged


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from danlu.train import session

    rows, wish = bert.rows(60), {**QUICK, "steps": 9, "save_every": 2}
    whole = BertForSequenceClassification.from_pretrained(base)
    whole.fit(rows, **wish)
    stopped = BertForSequenceClassification.from_pretrained(base)
    before = session._Session._stepped

    def ask(self: Any, event: Any) -> None:
        before(self, event)
        if event.step == 5:
            self.stop = "a test"

    monkeypatch.setattr(session._Session, "_stepped", ask)
    with pytest.raises(KeyboardInterrupt, match="a test"):
        stopped.fit(rows, folder=tmp_path / "fit", **wish)
    monkeypatch.setattr(session._Session, "_stepped", before)
    reached = weights(stopped)
    again = BertForSequenceClassification.from_pretrained(base)
    again.fit(rows, folder=tmp_path / "fit", **wish)
    assert weights(again) == weights(whole) != reached


def test_a_folder_of_another_training_is_refused(base: Path, tmp_path: Path) -> None:
    for seed in (1, 1):  # the same again has nothing to do
        BertForSequenceClassification.from_pretrained(base).fit(
            bert.rows(30), folder=tmp_path, **{**QUICK, "steps": 2, "seed": seed}
        )
    with pytest.raises(UserError, match="settings") as caught:
        BertForSequenceClassification.from_pretrained(base).fit(bert.rows(30), folder=tmp_path, **QUICK)
    assert caught.value.code == "E140"
    with pytest.raises(UserError, match="rows"):
        BertForSequenceClassification.from_pretrained(base).fit(
            bert.rows(30, 5), folder=tmp_path, **{**QUICK, "steps": 2}
        )


def test_what_was_trained_in_16_bits_is_a_plain_network_again(base: Path, tmp_path: Path) -> None:
    rows = bert.rows(24)
    model = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    model.fit(rows, **{**QUICK, "steps": 2, "precision": "bf16"})
    assert model.net.dtype == torch.float32
    assert {p.dtype for p in model.net.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "kept")
    opened = BertForSequenceClassification.from_pretrained(tmp_path / "kept")
    batch = {"input_ids": torch.arange(1, 13).view(2, 6)}
    assert torch.equal(model.eval()(**batch).logits, opened.eval()(**batch).logits)


def test_a_loop_of_ones_own_sees_the_loss_of_fit(base: Path) -> None:
    """The first step of fit, over all rows, beside a batch of transformers' tokenizer through model(**batch)."""
    rows = bert.rows(24)
    model = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    batch = dict(tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt"))
    batch["labels"] = torch.tensor([LABELS.index(row["label"]) for row in rows])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        out = model(**batch)
        assert out.logits.shape == (24, 3)
        losses.append(float(out.loss.detach()))
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    wish = {**QUICK, "optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "clip": 0.0, "warmup": 0.0}
    wish |= {
        "steps": 3,
        "dropout": 0.0,
        "schedule": "constant",
        "batch_tokens": 10_000,
        "split": {"valid": 0.0, "test": 0.0},
    }
    fitted = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    history = fitted.fit(rows, **wish)
    assert history["loss"] == pytest.approx(losses, abs=2e-6)
    assert not model.untrained, "one's own loop trains it too"


def test_logits_are_those_of_transformers_whatever_the_padding(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "out")
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(
        ["It is the king.", "The old ship sees a river, it is the queen."], padding=True, return_tensors="pt"
    )
    labels = torch.tensor([0, 2])
    with torch.no_grad():
        ours, theirs = fitted(**batch, labels=labels), stock(**batch, labels=labels)
    assert torch.allclose(ours.logits, theirs.logits, atol=1e-5)
    assert float(ours.loss) == pytest.approx(float(theirs.loss), abs=1e-5)


# --- what is measured is what the command measures -------------------------------------------------------


def test_the_command_measures_the_same(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "out")
    path = bert.jsonl(tmp_path / "test.jsonl", bert.rows(30, 120))
    group = on_data(tmp_path / "out", str(path))
    assert dict(fitted.evaluate(path, quiet=True)) == pytest.approx(next(iter(group.figures.values())))


# --- tuning ----------------------------------------------------------------------------------------------


def changed(before: dict[str, torch.Tensor], model: Any) -> set[str]:
    return {name for name, tensor in model.net.state_dict().items() if not tensor.equal(before[name])}


@pytest.mark.parametrize("tune", ["head", "last-1", "lora"])
def test_tuning_changes_what_it_says(base: Path, tune: str) -> None:
    model = BertForSequenceClassification.from_pretrained(base, labels=LABELS)
    before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    model.fit(bert.rows(60), tune=tune, **{**QUICK, "steps": 4})
    names = changed(before, model)
    assert set(model.net.state_dict()) == set(before), "the network is a plain one again"
    assert all(p.requires_grad for p in model.parameters())
    if tune == "head":
        assert names and all(name.startswith("head.") for name in names)
    elif tune == "last-1":
        assert names and not any(name.startswith(("embed", "core.blocks.0.")) for name in names)
    else:
        backbone = {name for name in names if not name.startswith("head.")}
        assert {name.rpartition(".")[0].rpartition(".")[2] for name in backbone} == {*"qkvo", "up", "down"}


@pytest.mark.parametrize("tune", ["dora", "qlora", "prefix", "adapter", "bitfit"])
def test_what_was_tuned_is_saved_as_it_answers(base: Path, tune: str, tmp_path: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    model.fit(bert.rows(60), tune=tune, **{**QUICK, "steps": 3})
    model.save_pretrained(tmp_path / "out")
    again = AutoModel.from_pretrained(tmp_path / "out")
    texts = [row["text"] for row in bert.rows(6, 100)]
    ours, theirs = model.predict(texts), again.predict(texts)
    assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in theirs], abs=1e-6)
    model.fit(bert.rows(60), **{**QUICK, "steps": 1})


# --- what is wrong is said at once -----------------------------------------------------------------------


def broken(change: Any) -> list[dict[str, Any]]:
    rows = [dict(row) for row in bert.rows(30)]
    change(rows)
    return rows


WRONG: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "column": ([{"review": "a text that is long", "stars": 1}] * 3, {"columns": {"text": "comment"}}, "E201", "review"),
    "one class": ([{"text": f"text {i}", "label": "a"} for i in range(9)], {}, "E251", "9|8"),
    "no label": (broken(lambda rows: rows[2].update(label=None)), {}, "E208", r"train\.jsonl:3"),
    "empty": ([{"text": "  ", "label": "a"}, {"text": "", "label": "b"}], {}, "E204", "2"),
    "no rows": ([], {}, "E270", "list"),
    "nothing": (3, {}, "E272", "int"),
    "x and y": ((["a", "b"], [1]), {}, "E271", "2 texts and 1"),
    "name": (bert.rows(9), {"epoch": 3}, "E102", "epochs"),
    "value": (bert.rows(9), {"epochs": "three"}, "E104", "epochs"),
    "two lengths": (bert.rows(9), {"epochs": 3, "steps": 4}, "E106", "epochs, steps"),
    "idle": (bert.rows(9), {"decay": 0.2}, "E106", "linear"),
    "tune": (bert.rows(9), {"tune": "half"}, "E104", "tune"),
    "path": ("nowhere.csv", {}, "E202", "nowhere"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_before_anything_slow(base: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, wish, code, said = WRONG[name]
    monkeypatch.setattr("danlu.stages.pretrain.learn", lambda *_, **__: pytest.fail("it began"))
    model = BertForSequenceClassification.from_pretrained(base)
    with pytest.raises(UserError, match=said) as caught:
        model.fit(data, quiet=True, **wish)
    assert caught.value.code == code


def test_labels_that_it_does_not_know_are_refused(fitted: Any) -> None:
    strange = [{"text": "It is the cook.", "label": "cook"}, {"text": "It is the king.", "label": "king"}] * 5
    for call in (fitted.evaluate, fitted.fit):
        with pytest.raises(UserError, match="cook") as caught:
            call(strange, quiet=True)
        assert caught.value.code == "E313"


def test_a_head_that_was_never_trained_says_so(base: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base, num_labels=4)
    with pytest.warns(UserWarning, match="chance"):
        assert model.predict("a text")["label"].startswith("LABEL_")
    with pytest.raises(UserError) as caught:
        model.evaluate(bert.rows(9))
    assert caught.value.code == "E142"


def test_what_evaluate_would_not_read_is_refused(fitted: Any) -> None:
    for name, value in (("epochs", 3), ("split", {"valid": 0.1}), ("context", 16)):
        with pytest.raises(UserError, match=name) as caught:
            fitted.evaluate(bert.rows(9), **{name: value})
        assert caught.value.code == "E102"


def test_long_texts_are_cut_and_counted(base: Path, capsys: Any) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    rows = [*bert.rows(20), {"text": "the old king " * 60, "label": "king"}]
    model.fit(rows, **{**QUICK, "steps": 1, "quiet": False})
    assert "64" in next(line for line in capsys.readouterr().err.splitlines() if line.strip().startswith("1 "))
