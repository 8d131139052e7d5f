"""Texts and their classes, found in raw files of many forms."""

import gzip
from pathlib import Path

import pytest

from danlu.data import starter
from danlu.data.starter import Found, recipe

SAYINGS = [f"a saying of some length, number {number}" for number in range(60)]
LABELS = ["good", "bad", "neither"]


def look(path: Path) -> Found | None:
    return starter.look(path, "text_classification")


def lines(form: str, start: int = 0, count: int = 60) -> str:
    return "".join(form.format(text=SAYINGS[i], label=LABELS[i % 3], number=i % 3) for i in range(start, start + count))


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("a.csv", "review,stars\n" + lines('"{text}",{number}\n'), {"columns": {"text": "review", "label": "stars"}}),
        ("a.tsv", "label\ttext\n" + lines("{label}\t{text}\n"), {}),
        ("a.tsv", lines("{text}\t{number}\n"), {"header": False, "columns": {"text": "1", "label": "2"}}),
        ("a.txt", lines("{text}\t{label}\n"),
         {"format": "tsv", "header": False, "columns": {"text": "1", "label": "2"}}),
        ("a.jsonl", lines('{{"sentence": "{text}", "label": {number}}}\n'), {"columns": {"text": "sentence"}}),
        ("a.txt", lines("__label__{label} {text}\n"), {"pattern": r"__label__(?P<label>\S+)\s+(?P<text>.*)"}),
        ("a.label", lines("ABBR:exp {text}\n", 0, 30) + lines("LOC:city {text}\n", 30, 30),
         {"pattern": r"(?P<label>[A-Z]+)(?::\w+)?\s(?P<text>.*)"}),
    ],
)  # fmt: skip
def test_every_form_is_found(tmp_path: Path, name: str, content: str, keys: dict[str, object]) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    found = look(tmp_path / name)
    assert found is not None
    assert dict(found.keys) == keys
    assert found.count == 60
    assert found.said["classes"] == (2 if name == "a.label" else 3)


def test_files_are_splits_by_their_names(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "train.tsv.gz", "wt") as file:
        file.write("label\ttext\n" + lines("{label}\t{text}\n"))
    for name in ("dev.tsv", "test.tsv"):
        (tmp_path / name).write_text("label\ttext\n" + lines("{label}\t{text}\n", 0, 9), "utf-8")
    (tmp_path / "README.md").write_text("About these rows.", "utf-8")
    found = look(tmp_path)
    assert found is not None
    assert {split: path.name for split, path in found.files.items()} == {
        "train": "train.tsv.gz", "valid": "dev.tsv", "test": "test.tsv",
    }  # fmt: skip
    written = starter.text(found, Path("rows"))
    assert all(f'"rows/{name}"' in written for name in ("train.tsv.gz", "dev.tsv", "test.tsv"))


def test_a_validation_file_is_learned_from_where_there_is_no_other(tmp_path: Path) -> None:
    for name in ("dev.txt", "test.txt"):
        (tmp_path / name).write_text(lines("{text}\t{number}\n"), "utf-8")
    found = look(tmp_path)
    assert found is not None
    assert {split: path.name for split, path in found.files.items()} == {"train": "dev.txt", "test": "test.txt"}
    assert "valid = 0.05" in starter.text(found, Path("rows"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join(SAYINGS)),
        ("a.jsonl", lines('{{"prompt": "{text}", "completion": "{label} it is, said {number}"}}\n')),
        ("a.csv", "id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(SAYINGS))),
        ("a.csv", "text,source\n" + lines('"{text}",one place\n')),
        ("a.csv", "x,y,kind\n" + "".join(f"{i * 0.37},{i * 1.1},{LABELS[i % 3]}\n" for i in range(60))),
    ],
)
def test_what_is_no_text_with_a_class_is_left_to_others(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert look(tmp_path / name) is None


def test_classes_in_blocks_are_seen(tmp_path: Path) -> None:
    rows = "".join(f"{label}\tsaying {i} of {label}\n" for label in ("good", "bad") for i in range(5000))
    (tmp_path / "a.tsv").write_text("label\ttext\n" + rows, "utf-8")
    found = look(tmp_path / "a.tsv")
    assert found is not None
    assert found.said["classes"] == 2


def test_the_starter_says_the_task(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("label\ttext\n" + lines("{label}\t{text}\n"), "utf-8")
    written, rows = recipe(tmp_path / "a.tsv", Path("a.tsv"))
    assert 'task = "text_classification"' in written
    assert rows == 60
