"""What is found in a file, and that the recipe written for it is one that loads."""

import csv
import json
import tomllib
from pathlib import Path

import pytest

from danlu.config import Recipe
from danlu.data.sniff import recipe_text, sniff
from danlu.errors import UserError

_SENTENCE = "物流很快，包装完好，下次还会再来买的。"


def _recipe(path: Path) -> Recipe:
    return Recipe.model_validate(tomllib.loads(recipe_text(sniff(path), path)))


def _jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_plain_chinese_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / '奇怪 "name".txt'
    path.write_text("\n\n".join(f"第{number}段。{_SENTENCE * 20}" for number in range(100)), encoding)
    found = sniff(path)
    assert (found.shape, found.encoding, found.code, found.files) == ("text", encoding, False, 1)
    assert found.chinese > 0.9
    recipe = _recipe(path)
    assert recipe.data.path == [str(path)]
    assert recipe.pretrain.sample == "第0段。" + _SENTENCE[:8]


def test_columns_of_a_table_are_mapped_by_content(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    with open(path, "w", newline="", encoding="gb18030") as file:
        csv.writer(file, delimiter=";").writerows([["id", "review", "stars"], *([n, _SENTENCE, 5] for n in range(30))])
    found = sniff(path)
    assert (found.columns, found.mapping, found.rows) == (("id", "review", "stars"), {"text": "review"}, 30)
    assert _recipe(path).data.columns == {"text": "review"}


@pytest.mark.parametrize("names", [("question", "answer"), ("问题", "回答"), ("Query", "Response")])
def test_questions_and_answers_become_pairs(tmp_path: Path, names: tuple[str, str]) -> None:
    path = _jsonl(tmp_path / "qa.jsonl", [dict(zip(names, (_SENTENCE, "谢谢"), strict=True))] * 3)
    assert sniff(path).mapping == {"prompt": names[0], "completion": names[1]}
    recipe = _recipe(path)
    assert recipe.finetune is not None
    assert recipe.finetune.derive == "same_rows"


def test_the_other_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    _jsonl(tmp_path / "chats.jsonl", [{"instruction": _SENTENCE, "input": "", "output": _SENTENCE}] * 20)
    _jsonl(tmp_path / "pairs.jsonl", [{"prompt": "q", "completion": "a"}])
    (tmp_path / "README.md").write_text("# About " + "these data " * 1000)
    (tmp_path / "notes.txt").write_text("a note")
    found = sniff(tmp_path)
    assert (found.shape, found.files, found.exclude) == ("chat", 2, ("README.md", "notes.txt"))
    assert _recipe(tmp_path).data.exclude == ["README.md", "notes.txt"]


def test_files_of_no_known_kind_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.de").write_text("Ein Hund.\n" * 20, "utf-8")
    (tmp_path / "train.en").write_text("A dog.\n" * 20, "utf-8")
    (tmp_path / "README.md").write_text("# Pairs of sentences\n", "utf-8")
    with pytest.raises(UserError) as caught:
        sniff(tmp_path)
    assert caught.value.code == "E203", "what tells of them is no text of its own"
    assert "train.de: 200 B" in str(caught.value)
    (tmp_path / "more.txt").write_text("Some text to learn from.\n" * 20, "utf-8")
    assert "2 file(s) are of no kind that is read, the first is train.de." in sniff(tmp_path).suggestions


def test_code_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n")
    found = sniff(tmp_path)
    assert (found.code, found.sample) == (True, "def ")


@pytest.mark.parametrize(
    ("content", "code"), [("", "E222"), ("\n\n  \n", "E222"), ("caf\xe9 \xff".encode("latin-1"), "E205")]
)
def test_what_cannot_be_used_is_said(tmp_path: Path, content: str | bytes, code: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        sniff(path)
    assert caught.value.code == code


def test_a_table_of_numbers_has_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="E201"):
        sniff(_jsonl(tmp_path / "a.jsonl", [{"x": 1, "y": [1, 2]}]))


@pytest.mark.parametrize(
    "name", ["tinyshakespeare", "zh_classic_novels", "instruct_demo", "web_text_samples", "chnsenticorp_htl"]
)
def test_the_recipe_for_real_data_loads(shared_data: Path, name: str) -> None:
    recipe = _recipe(shared_data / name)
    assert recipe.data.exclude == ["README.md"]
    assert (recipe.finetune is not None) == (name == "instruct_demo")


def test_a_table_of_texts_without_a_header_keeps_its_first_row(tmp_path: Path) -> None:
    lines = [
        f"{n}\ta title, number {n}\tand what is said of it, which is some words longer than that: {n}"
        for n in range(30)
    ]
    for name in ("one.tsv", "two.tsv"):
        (tmp_path / name).write_text("\n".join(lines) + f"\n{name}\tlast\tone more\n", "utf-8")
    found = sniff(tmp_path)
    assert (found.files, found.rows, found.header, found.mapping) == (2, 62, False, {"text": "3"})
    data = _recipe(tmp_path).data
    assert (data.header, data.columns) == (False, {"text": "3"})
