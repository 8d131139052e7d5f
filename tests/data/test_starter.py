"""Raw files of published sets: the first recipe knows their task, their files and their forms."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from danlu.data import formats, shapes, sources
from danlu.data.starter import by_split, recipe
from danlu.errors import UserError

ITEM = """<item id="{n}" asks-for="{asks}" most-plausible-alternative="{right}">
<p>The glass fell &amp; broke.</p><a1>It was pushed.</a1><a2>It was drunk, {n}.</a2></item>"""


def found(folder: Path) -> dict[str, Any]:
    return tomllib.loads(recipe(folder, Path("here"))[0])


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("train dev test", {"train": "train", "valid": "dev", "test": "test"}),
        ("a.train.tsv a.test.tsv b.train.tsv b.test.tsv b.dev.tsv",
         {"train": "b.train.tsv", "valid": "b.dev.tsv", "test": "b.test.tsv"}),
        ("class_train.csv class_dev.csv title_dev.csv title_test.csv",
         {"train": "class_train.csv", "valid": "class_dev.csv"}),
        ("a_train.csv a_training.csv", {}),
        ("rows.csv rows_test.csv", {"train": "rows.csv", "test": "rows_test.csv"}),
        ("names dev test", {"train": "dev", "test": "test"}),
        ("trial dev", {"train": "trial", "valid": "dev"}),
        ("train.gz dev.xz", {"train": "train.gz", "valid": "dev.xz"}),
    ],
)  # fmt: skip
def test_files_are_told_apart_by_their_names(tmp_path: Path, names: str, wanted: dict[str, str]) -> None:
    paths = [tmp_path / name for name in names.split()]
    for path in paths:
        path.write_text("a" if path.name == "names" else "as many letters, and more", "utf-8")
    assert {split: path.name for split, path in by_split(paths).items()} == wanted


def test_files_of_one_form_without_splits_are_learned_together(tmp_path: Path) -> None:
    for name in ("zh", "en"):
        rows = [f"{'good' if n % 2 else 'bad'}\tA long text of {name}, number {n}." for n in range(40)]
        (tmp_path / f"reviews.{name}.tsv").write_text("\n".join(["label\ttext", *rows]), "utf-8")
    made, seen = recipe(tmp_path, Path("here"))
    assert tomllib.loads(made)["data"]["path"] == ["here/reviews.en.tsv", "here/reviews.zh.tsv"]
    assert seen == 80
    (tmp_path / "reviews.fr.tsv").write_text("label\tother\tmore\n1\t2\t3\n", "utf-8")
    assert tomllib.loads(recipe(tmp_path, Path("here"))[0])["task"] != "text_classification", "one is of another form"


def test_stories_of_mctest_are_read_with_the_letters_beside_them(tmp_path: Path) -> None:
    asked = "\t".join(f"{kind}: Who is it?\thim\ther\tnobody\tall" for kind in ("one", "multiple", "one", "one"))
    lines = [f"dev.{n}\tAuthor: {n}\tA story, {n}.\\newlineIt ends.\t{asked}" for n in range(9)]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\nshort\tline\n", "utf-8")
    (tmp_path / "dev.ans").write_text("A\tB\tC\tD\n" * 10, "utf-8")
    made = found(tmp_path)
    assert made["task"] == "multiple_choice"
    assert (made["data"]["path"], made["data"]["format"]) == (["here/dev.tsv", "here/dev.ans"], "mctest")
    several = sources.describe([tmp_path / "dev.tsv", tmp_path / "dev.ans"], format="mctest")
    rows = [raw for file in several for _, raw in formats.read(file, formats.Cut())]
    assert len(rows) == 4 * 9 + 1
    assert isinstance(rows[-1], shapes.Flaw)
    assert shapes.canonical(rows[1], "choice") == {
        "text": "A story, 0.\nIt ends.\nWho is it?", "choices": ["him", "her", "nobody", "all"], "label": "1",
    }  # fmt: skip
    (tmp_path / "dev.ans").unlink()
    with pytest.raises(UserError) as caught:
        [list(formats.read(file, formats.Cut())) for file in several]
    assert caught.value.code == "E202"


def copa(path: Path, items: str) -> Path:
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<copa-corpus>\n{items}\n</copa-corpus>\n', "utf-8")
    return path


def test_items_of_copa_are_questions_with_two_candidates(tmp_path: Path) -> None:
    items = [ITEM.format(n=n, asks=("cause", "effect")[n % 2], right=n % 2 + 1) for n in range(30)]
    copa(tmp_path / "dev-all.xml", "\n".join(items))
    (tmp_path / "README.md").write_text("About causes.", "utf-8")
    made = found(tmp_path)
    assert (made["task"], made["data"]["path"], made["data"]["format"]) == (
        "multiple_choice",
        "here/dev-all.xml",
        "copa",
    )
    (file,) = sources.describe([tmp_path / "dev-all.xml"], format="copa")
    rows = [shapes.canonical(raw, "choice") for _, raw in formats.read(file, formats.Cut()) if isinstance(raw, dict)]
    assert rows[0] == {
        "text": "The glass fell & broke. What was the cause of this?",
        "choices": ["It was pushed.", "It was drunk, 0."], "label": "0",
    }  # fmt: skip
    assert rows[1]["text"].endswith("What happened as a result?")
    assert rows[1]["label"] == "1"


@pytest.mark.parametrize(
    "items", ["<item>", ITEM.format(n=1, asks="why", right=1), ITEM.format(n=1, asks="cause", right="x")]
)
def test_a_damaged_file_of_copa_is_named(tmp_path: Path, items: str) -> None:
    (file,) = sources.describe([copa(tmp_path / "a.xml", items)], format="copa")
    with pytest.raises(UserError) as caught:
        list(formats.read(file, formats.Cut()))
    assert caught.value.code == "E210"


@pytest.mark.parametrize(
    "row",
    [
        {"Correct Statement": "milk {n}", "Incorrect Statement": "stone {n}", "Right Reason1": "one drinks it"},
        {"question": "What is drunk, {n}?", "correct_answer": "milk", "distractor1": "stone", "distractor2": "air"},
    ],
)
def test_columns_may_tell_which_candidate_is_right(tmp_path: Path, row: dict[str, str]) -> None:
    rows = [{name: value.format(n=n) for name, value in row.items()} for n in range(40)]
    lines = ["\t".join(row), *("\t".join(each.values()) for each in rows)]
    (tmp_path / "rows.tsv").write_text("\n".join(lines), "utf-8")
    assert found(tmp_path)["task"] == "multiple_choice"
    made = [shapes.canonical(each, "choice") for each in rows]
    assert all("milk" in each["choices"][int(each["label"])] for each in made)
    if "question" not in row:
        share = sum(each["label"] == "0" for each in made) / len(made)
        assert 0.2 < share < 0.8, "the place of the right one tells nothing"


@pytest.mark.parametrize(
    ("name", "task", "files", "rows"),
    [
        ("balanced_copa", "multiple_choice", {"path": "balanced-copa-dev-all.xml"}, 1000),
        ("comve_semeval2020t4", "multiple_choice",
         {"path": "train.csv.gz", "valid": "dev.csv", "test": "test.csv"}, 10_000),
        ("csl", "text_classification",
         {"path": "category_train.tsv", "valid": "category_dev.tsv", "test": "category_test.tsv"}, 8000),
        ("wnut17_ner", "token_classification",
         {"path": "wnut17train.conll", "valid": "emerging.dev.conll", "test": "emerging.test.annotated"}, 3394),
        ("mctest", "multiple_choice",
         {"path": "mc500.train.tsv", "valid": "mc500.dev.tsv", "test": "mc500.test.tsv"}, 1200),
        ("thucnews_titles", "text_classification", {"path": "dev.txt", "test": "test.txt"}, 10_000),
        ("cmrc2018", "reading_comprehension", {"path": "cmrc2018_trial.json", "valid": "cmrc2018_dev.json"}, 1002),
        ("xquad", "reading_comprehension", {"path": "xquad.en.json"}, 2380),
    ],
)  # fmt: skip
def test_real_sets_are_known(shared_data: Path, name: str, task: str, files: dict[str, str], rows: int) -> None:
    written, count = recipe(shared_data / name, Path("here"))
    made = tomllib.loads(written)
    assert (made["task"], count) == (task, rows)
    named = {key: made["data"][key] for key in ("path", "valid", "test") if key in made["data"]}
    assert {key: Path(each[0] if isinstance(each, list) else each).name for key, each in named.items()} == files
