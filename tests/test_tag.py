"""A whole life of a tagger: sentences with names in, entities with their characters out, also over HTTP."""

from pathlib import Path

import pytest
import torch
import transformers

from danlu import Model, files
from danlu.config import Serve
from danlu.graph import Life, Silent
from danlu.modalities.words import words
from danlu.serve.run import background
from danlu.stages.evaluate import on_data
from danlu.tasks.token_classification import _cuts
from tests import tiny_task
from tests.tiny_life import WORDS, sentences

RECIPE = tiny_task.recipe("token_classification", "conll", steps=80)
NAMES = dict.fromkeys(WORDS["who"][:8], "WHO")


def columns(start: int, count: int) -> str:
    """Sentences, one or two in a row, in which some words, and the word before them, are what is looked for."""
    lines, drawn = [], sentences(start + count)[start:]
    for number, one in enumerate(drawn):
        text = f"{one} {drawn[number - 1]}" if number % 2 else one
        parts = [text[a:b] for a, b in words(text)]
        tags = ["O"] * len(parts)
        for place, part in enumerate(parts):
            if part in NAMES:
                tags[place - 1 : place + 1] = ["B-WHO", "I-WHO"]
        lines += [f"{part}\t{tag}" for part, tag in zip(parts, tags, strict=True)] + [""]
    return "\n".join(lines) + "\n"


def project(folder: Path) -> Life:
    return tiny_task.project(folder, RECIPE, columns(0, 240), columns(240, 60))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(project(tmp_path_factory.mktemp("tag")).run(Silent()).folders)


def test_it_learns_and_is_measured_beside_the_simple_model(folders: dict[str, Path]) -> None:
    told = files.read_json(folders["evaluate"] / "metrics.json")
    assert told["models"]["base"]["entity_f1"] > 0.9
    assert told["models"]["window"]["entity_f1"] > 0.9
    (each,) = told["each"]
    assert each["label"] == "WHO"
    assert each["f1"] == pytest.approx(told["models"]["base"]["entity_f1"])
    low, high = told["intervals"]["models"]["window"]["entity_f1"]
    assert 0 < low <= told["models"]["window"]["entity_f1"] <= high
    assert each["f1_low"] <= each["f1"] <= each["f1_high"]
    for wrong in files.read_json(folders["evaluate"] / "errors.json"):
        assert wrong["wanted"] != wrong["found"]


def test_it_answers_alike_everywhere(folders: dict[str, Path]) -> None:
    """Characters of the user's own text, spaces and all."""
    model = Model.from_pretrained(folders["pretrain"])
    asked = "  The  old king\tsees a tall queen, 7. "
    said = model.predict(asked)["entities"]
    assert [(each["type"], each["text"]) for each in said] == [("WHO", "old king"), ("WHO", "tall queen")]
    assert all(asked[each["start"] : each["end"]] == each["text"] and 0 < each["score"] <= 1 for each in said)
    with background(model, "tiny", Serve(port=0)) as url:
        served = tiny_task.asked(url, {"text": [asked, "No."]})["predictions"]
    assert [{**each, "score": pytest.approx(each["score"], abs=1e-5)} for each in served[0]["entities"]] == said
    assert served[1] == {"entities": []}


def test_a_text_longer_than_the_context_is_answered_whole(folders: dict[str, Path]) -> None:
    model = Model.from_pretrained(folders["pretrain"])
    one = "The old king sees a tall queen, 7. "
    whole = one * 30
    assert len(model.task.windows({"text": whole})) > 5
    said = model.predict(whole)["entities"]
    assert [(each["start"], each["end"]) for each in said[:2]] == [(4, 12), (20, 30)]
    assert len(said) >= 45, "of 60: a window may err at its edge"
    assert all(whole[each["start"] : each["end"]] == each["text"] for each in said)


@pytest.mark.parametrize(("length", "room"), [(5, 10), (10, 10), (11, 10), (100, 10), (0, 10), (7, 1)])
def test_every_token_is_one_windows_own(length: int, room: int) -> None:
    cuts = list(_cuts(length, room))
    assert [start + place for start, _, (a, b) in cuts for place in range(a, b)] == list(range(length))
    assert all(0 < end - start <= room and 0 <= a <= b <= end - start for start, end, (a, b) in cuts if length)


def test_transformers_opens_the_folder(folders: dict[str, Path]) -> None:
    folder, text = folders["pretrain"], "The old king sees a tall queen, 7."
    ours = Model.from_pretrained(folder)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    with torch.no_grad():
        wanted = theirs.eval()(**transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).logits
        found = ours.net(ours.processor.collate([ours.task.encode({"text": text})]))
    assert found.std() > 0.1
    assert torch.allclose(found, wanted, atol=1e-5)
    assert theirs.config.id2label == {0: "B-WHO", 1: "I-WHO", 2: "O"}


def test_other_rows_are_measured(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "more.conll").write_text(columns(0, 20), "utf-8")
    group = on_data(folders["pretrain"], str(tmp_path / "more.conll"))
    assert next(iter(group.figures.values()))["entity_f1"] > 0.9


@pytest.mark.parametrize(
    ("train", "test", "code"),
    [
        ("in O\nParis O\n", "in O\nRome O\n", "E253"),
        ("in O\nParis B-LOC\n", "in O\nZhou B-PER\n", "E252"),
        ("in O\nParis B-LOC\n\nin\n", "in O\nRome B-LOC\n", "E208"),
        ("in O\nParis X-LOC\n", "in O\nRome B-LOC\n", "E208"),
        ("\n", "in O\nRome B-LOC\n", "E222"),
    ],
)
def test_what_cannot_be_learned_is_said_at_once(tmp_path: Path, train: str, test: str, code: str) -> None:
    life = tiny_task.project(tmp_path, RECIPE.replace("valid = 0.1", "valid = 0.0"), train, test)
    assert tiny_task.refused(life, "encode").code == code
