"""Questions about texts: SQuAD's, CMRC's and flat records; answers that are not where they should be."""

import json
from pathlib import Path
from typing import Any

import pytest

from danlu.data import filters, shapes
from danlu.data.shapes import Flaw, question
from danlu.data.starter import look, recipe
from danlu.errors import UserError
from tests.data.test_tagged import read

CONTEXT = "The king lives in Rome. The queen lives in Paris."
ANSWERS = [{"text": "Paris", "answer_start": 43}]


def squad(*questions: dict[str, Any]) -> str:
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": list(questions)}]}]})


@pytest.mark.parametrize(
    ("name", "content", "format", "answers"),
    [
        ("a.json", squad({"question": "Where?", "id": "1", "answers": ANSWERS}), "squad", [("Paris", 43)]),
        ("a.json", squad({"question": "Where?", "answers": [], "is_impossible": True}), "squad", []),
        ("a.json", json.dumps([{"context_text": CONTEXT, "qas": [{"query_text": "Where?", "answers": ["Paris"]}]}]),
         "squad", [("Paris", 43)]),
        ("a.jsonl", json.dumps({"context": CONTEXT, "question": "Where?",
                                "answers": {"text": ["Rome", "Paris"], "answer_start": [18, 43]}}), "auto",
         [("Rome", 18), ("Paris", 43)]),
        ("a.jsonl", json.dumps({"context": CONTEXT, "question": "Where?", "answers": {"text": [], "answer_start": []}}),
         "auto", []),
    ],
)  # fmt: skip
def test_every_form_is_read(tmp_path: Path, name: str, content: str, format: str, answers: object) -> None:
    (row,) = read(tmp_path, name, content, format, "question")
    assert row == {"question": "Where?", "context": CONTEXT, "answers": answers}


def test_an_answer_is_looked_for_nearby_and_one_that_is_not_there_is_only_compared_with() -> None:
    row = {"question": "q", "context": "a b a b a", "answers": [{"text": "b", "answer_start": 5}, {"text": "c"}]}
    assert question.canonical(row)["answers"] == [("b", 6), ("c", -1)]
    with pytest.raises(Flaw) as caught:
        question.canonical(row | {"answers": [{"text": "c", "answer_start": 0}]})
    assert caught.value.key == "answer"
    with pytest.raises(Flaw):
        question.canonical({"question": "q", "context": "a"})


def test_cleaning_keeps_answers_at_their_characters() -> None:
    row = {
        "question": "q",
        "context": "le cafe\u0301 de\x00 Ame\u0301lie",
        "answers": [("Ame\u0301lie", 13), ("x", -1)],
    }
    clean = shapes.mapped(row, filters.normalize)
    ((said, start), other) = clean["answers"]
    assert clean["context"][start : start + len(said)] == said == "Amélie"
    assert other == ("x", -1)
    assert shapes.loaded(shapes.stored(clean)) == clean


def test_an_answer_that_is_not_there_is_named_with_its_question(tmp_path: Path) -> None:
    bad = {"question": "Where is the cook?", "answers": [{"text": "Berlin", "answer_start": 3}]}
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a.json", squad({"question": "Where?", "answers": ANSWERS}, bad), "squad", "question")
    assert caught.value.code == "E208"
    assert caught.value.where == "a.json:2"
    assert "Berlin" in caught.value.render()


def test_a_file_of_another_kind_is_damaged_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a.json", '{"data": [{"paragraphs": 3}]}', "squad", "question")
    assert caught.value.code == "E210"


def test_files_are_recognised(tmp_path: Path) -> None:
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / name).write_text(squad({"question": "Where?", "answers": ANSWERS}), "utf-8")
    found = look(tmp_path, "reading_comprehension")
    assert found is not None
    assert dict(found.keys) == {"format": "squad"}
    written, rows = recipe(tmp_path, Path("squad"))
    assert rows == 1
    assert 'task = "reading_comprehension"' in written
    (tmp_path / "pairs.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 3, "utf-8")
    assert look(tmp_path / "pairs.jsonl", "reading_comprehension") is None
