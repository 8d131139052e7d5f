"""A whole life of a reader: questions about texts in, the place that answers them out; long texts, and no answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from danlu import Model, files
from danlu.config import Serve
from danlu.data import store
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.serve.run import background
from danlu.stages.evaluate import on_data
from danlu.tasks.reading_comprehension import END, IGNORE, START, ReadingComprehension
from tests import tiny_task

PEOPLE = ["king", "queen", "fool", "cook", "ghost", "sailor"]
THINGS = ["silver ship", "old lantern", "small book", "garden", "tall tower", "hidden river"]
RECIPE = tiny_task.recipe(
    "reading_comprehension", "json", data='format = "squad"', model="depth = 2\nwidth = 64", context=48, steps=300,
    batch_tokens=768, train="dropout = 0.0",
)  # fmt: skip


def squad(seed: int, count: int, *, impossible: bool = True) -> dict[str, Any]:
    """Who has what: two sentences, and a question about one of them or about somebody else."""
    random = np.random.Generator(np.random.PCG64(seed))
    paragraphs = []
    for _ in range(count):
        people, things = random.permutation(PEOPLE)[:3], random.permutation(THINGS)[:2]
        context = f"The {people[0]} has the {things[0]}. The {people[1]} has the {things[1]}."
        asked = []
        for place, person in enumerate(people if impossible else people[:2]):
            answers = []
            if place < 2:
                answers = [{"text": str(things[place]), "answer_start": context.index(str(things[place]))}]
            asked.append({"question": f"What has the {person}?", "answers": answers, "is_impossible": place == 2})
        paragraphs.append({"context": context, "qas": asked})
    return {"data": [{"title": "who", "paragraphs": paragraphs}]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    train, test = (json.dumps(squad(seed, count)) for seed, count in ((1, 200), (2, 20)))
    return dict(tiny_task.project(tmp_path_factory.mktemp("read"), RECIPE, train, test).run(Silent()).folders)


def test_it_learns_and_is_measured_beside_the_simple_reader(folders: dict[str, Path]) -> None:
    told = files.read_json(folders["evaluate"] / "metrics.json")["models"]
    assert told["base"]["exact_match"] > 0.8
    assert told["base"]["answer_f1"] >= told["base"]["exact_match"]
    assert told["sentence"]["exact_match"] == 0.0
    assert 0 < told["sentence"]["answer_f1"] < told["base"]["answer_f1"]


def test_questions_about_one_text_stay_in_one_split(folders: dict[str, Path]) -> None:
    rows = {split: list(store.read(folders["prepare"] / "rows", split)) for split in ("train", "valid")}
    train, valid = ({row["context"] for row in rows[split]} for split in ("train", "valid"))
    assert rows["valid"]
    assert not train & valid


def test_it_answers_alike_everywhere(folders: dict[str, Path]) -> None:
    model = Model.from_pretrained(folders["pretrain"])
    context = "  The king has the old lantern.\n The cook  has the small book. "
    said = model.predict(json.dumps({"question": "What has the cook?", "context": context}))
    assert said["text"] == "small book"
    assert context[said["start"] : said["end"]] == said["text"]
    assert 0 < said["score"] <= 1
    assert all(other["score"] <= said["score"] for other in said["others"])
    nothing = model.judge([{"question": "What has the ghost?", "context": context}])[0]
    assert (nothing["text"], nothing["start"]) == ("", None)
    with background(model, "tiny", Serve(port=0)) as url:
        (served,) = tiny_task.asked(url, {"question": ["What has the cook?"], "context": [context]})["predictions"]
    assert (served["text"], served["start"]) == (said["text"], said["start"])
    with pytest.raises(UserError) as caught:
        model.predict("What has the cook?")
    assert caught.value.code == "E607"


def test_a_long_text_is_read_in_windows(folders: dict[str, Path]) -> None:
    """Every token stands in a window, windows overlap, and the answer in any of them is found."""
    model = Model.from_pretrained(folders["pretrain"])
    filler = "The garden has the tall tower. " * 20
    context = f"{filler}The cook has the small book. {filler}"
    row = {"question": "What has the cook?", "context": context, "answers": [("small book", context.index("small"))]}
    examples = model.task.windows(row)
    assert len(examples) > 5
    assert all(len(example["input_ids"]) <= 48 for example in examples)
    held = [example for example in examples if max(example["labels"][1:]) > 0]
    assert 1 <= len(held) < len(examples)
    for example in examples:
        marked = [(place, label) for place, label in enumerate(example["labels"]) if label > 0]
        if example in held:
            (first, a), (last, b) = marked
            assert (a, b) == (START, END)
            assert model.processor.decode(example["input_ids"][first : last + 1]) == "small book"
        else:
            assert marked == [(0, START + END)]
    said = model.task.joined(row, [{"shares": sure_of(example)} for example in examples])
    assert (said["text"], said["start"]) == ("small book", context.index("small"))
    assert said["score"] == pytest.approx(1, abs=1e-3)
    assert model.predict(json.dumps({name: row[name] for name in ("question", "context")}))["others"]


def sure_of(example: dict[str, Any]) -> torch.Tensor:
    """What a reader without doubts would say of a window: all shares at its labels."""
    labels = torch.tensor([label for label in example["labels"] if label != IGNORE])
    logits = torch.stack([(labels & bit > 0) * 20.0 for bit in (START, END)], -1)
    return logits.log_softmax(0)


def test_the_loss_is_torchs_over_each_window_alone(folders: dict[str, Path]) -> None:
    """Two windows packed into a row, against cross-entropy over the tokens of each that may be chosen."""
    model = Model.from_pretrained(folders["pretrain"])
    task: Any = model.task
    rows = [{"question": "What has the cook?", "context": f"The cook has the {thing}.",
             "answers": [(thing, 17)]} for thing in ("garden", "old lantern")]  # fmt: skip
    one, two = (task.encode(row) for row in rows)
    packed = {name: torch.tensor([[*one[name], *two[name]]]) for name in one}
    packed["segment_ids"] = torch.tensor([[1] * len(one["labels"]) + [2] * len(two["labels"])])
    wanted = torch.zeros(())
    for example in (one, two):
        batch = {name: torch.tensor([values]) for name, values in example.items()}
        labels = batch["labels"][0]
        logits = model.net(batch)[0].masked_fill((labels == IGNORE)[:, None], float("-inf"))
        places = torch.tensor([int((labels.clamp(min=0) & bit).argmax()) for bit in (START, END)])
        wanted = wanted + torch.nn.functional.cross_entropy(logits.T, places, reduction="sum") / 2
    assert float(task.loss(model.net, packed)["loss"].detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
    assert int(task.counts(packed)["loss"]) == 2


def test_transformers_opens_the_folder(folders: dict[str, Path]) -> None:
    folder = folders["pretrain"]
    ours = Model.from_pretrained(folder)
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer("What has the cook?", "The cook has the garden.", return_tensors="pt")
    made = ours.task.encode({"question": "What has the cook?", "context": "The cook has the garden."})
    with torch.no_grad():
        said, found = theirs(**batch), ours.net(ours.processor.collate([made]))
    assert batch["input_ids"][0].tolist() == list(made["input_ids"])
    assert torch.allclose(found[..., 0], said.start_logits, atol=1e-4)
    assert torch.allclose(found[..., 1], said.end_logits, atol=1e-4)


def test_other_questions_are_measured(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "more.json").write_text(json.dumps(squad(3, 10)), "utf-8")
    assert next(iter(on_data(folders["pretrain"], str(tmp_path / "more.json")).figures.values()))["exact_match"] > 0.6


def test_without_unanswerable_questions_there_is_always_an_answer(folders: dict[str, Path]) -> None:
    model = Model.from_pretrained(folders["pretrain"])
    sure = ReadingComprehension(model.processor, ("answer",), model.context)
    row = {"question": "What has the ghost?", "context": "The cook has the garden."}
    found = sure.predict(model.net, model.processor.collate(sure.windows(row)))
    assert sure.joined(row, found)["text"]
    assert sure.joined({**row, "context": "."}, [{"shares": torch.zeros(2, 2)}])["start"] is not None
