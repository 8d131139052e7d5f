"""A whole life of an extractor of relations: marked sentences in, the relation out; marks are control tokens."""

from pathlib import Path

import pytest
import torch

from danlu import Model, files
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.serve.judge import Judge
from danlu.serve.refusal import Refusal
from danlu.tasks.relation_extraction import RelationExtraction
from tests import tiny_task
from tests.tiny_life import sentences

RECIPE = tiny_task.recipe("relation_extraction", "csv", context=64, batch_tokens=512)


def rows(start: int, count: int) -> str:
    """Who comes first decides the direction, and every third sentence says nothing of the two."""
    lines = []
    for number, text in enumerate(sentences(start + count)[start:]):
        one, two = ("e1", "e2") if number % 2 else ("e2", "e1")
        words = text.split()
        words[2], words[6] = f"<{one}>{words[2]}</{one}>", f"<{two}>{words[6].rstrip(',')}</{two}>"
        words[4] = "near" if number % 3 == 0 else "above"
        label = "Other" if number % 3 == 0 else f"Above({'e1,e2' if number % 2 else 'e2,e1'})"
        lines.append(f'"{" ".join(words)}","{label}"\n')
    return "text,label\n" + "".join(lines)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    life = tiny_task.project(tmp_path_factory.mktemp("relate"), RECIPE, rows(0, 200), rows(200, 60))
    return dict(life.run(Silent()).folders)


def test_it_learns_relation_and_direction(folders: dict[str, Path]) -> None:
    told = files.read_json(folders["evaluate"] / "metrics.json")["models"]
    assert told["base"]["relation_f1"] > 0.9
    assert "relation_f1" in told["bag"]
    model = Model.from_pretrained(folders["pretrain"])
    assert model.predict("The old <e1>king</e1> sees above a <e2>queen</e2>, 7.")["label"] == "Above(e1,e2)"
    assert model.predict("The old <e2>king</e2> sees above a <e1>queen</e1>, 7.")["label"] == "Above(e2,e1)"


def test_marks_are_control_tokens_and_text_is_none(folders: dict[str, Path]) -> None:
    model = Model.from_pretrained(folders["pretrain"])
    control = model.processor.control
    ids = model.task.encode({"text": "[E1] is <e1>text</e1> and <e2>so</e2>"})["input_ids"]
    assert [ids.count(control[name]) for name in RelationExtraction.markers] == [1, 1, 1, 1]


def test_of_a_long_text_the_middle_between_the_marks_stays(folders: dict[str, Path]) -> None:
    task = Model.from_pretrained(folders["pretrain"]).task
    far = "old " * 200
    ids = task.encode({"text": f"{far}<e1>king</e1> sees <e2>queen</e2> {far}"})["input_ids"]
    assert len(ids) == task.context
    assert all(task.processor.control[name] in ids for name in RelationExtraction.markers)


def test_so_much_as_wanted_is_read_around_the_marks(folders: dict[str, Path]) -> None:
    model = Model.from_pretrained(folders["pretrain"])
    task = RelationExtraction(model.processor, model.task.labels, model.context, {"around": 1})
    text = "The old <e1>king</e1> sees a <e2>queen</e2> in the garden"
    whole, near = (each.encode({"text": text})["input_ids"] for each in (model.task, task))
    assert len(near) < len(whole)
    first, last = (whole.index(model.processor.control[name]) for name in ("[E1]", "[/E2]"))
    assert near == [whole[0], *whole[first - 1 : last + 2], whole[-1]]


def test_a_text_without_marks_is_refused_and_its_neighbours_are_not(folders: dict[str, Path]) -> None:
    model = Model.from_pretrained(folders["pretrain"])
    with pytest.raises(UserError) as caught:
        model.predict("nothing is marked")
    assert caught.value.code == "E254"
    with Judge(model) as judge:
        good, bad = (judge.submit([{"text": text}]) for text in ("a <e1>b</e1> <e2>c</e2>", "nothing is marked"))
        assert good.result(60)[0]["label"]
        with pytest.raises(Refusal, match="400"):
            bad.result(60)


def test_a_base_without_the_marks_grows_and_stays_itself(folders: dict[str, Path]) -> None:
    """The vectors of its own tokens do not change, and it is the same function of texts without marks."""
    trained = Model.from_pretrained(folders["pretrain"])
    architecture = trained.architecture
    more = trained.processor.with_control(["[NEW]"])
    grown = trained.grown(more, seed=1)
    assert grown.net.embed.tokens.weight.shape[0] == architecture.tokens.vocab + 1
    ids = torch.tensor([trained.task.encode({"text": "a <e1>b</e1> <e2>c</e2>"})["input_ids"]])
    with torch.no_grad():
        assert torch.equal(grown.net.eval()({"input_ids": ids}), trained.net.eval()({"input_ids": ids}))
    assert trained.grown(trained.processor, seed=1) is trained
