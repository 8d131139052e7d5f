"""Texts with two marked things: SemEval's blocks, tables, JSON; what is broken is named with its line."""

from pathlib import Path
from typing import Any

import pytest

from danlu.data import filters, shapes
from danlu.data.shapes import Flaw, marked
from danlu.data.starter import look, recipe
from danlu.errors import UserError
from danlu.recipe import load_recipe
from tests.data.test_tagged import read

BLOCK = '{n}\t"The <e1>child {n}</e1> was wrapped into the <e2>cradle</e2>."\r\n{label}\r\nComment: none\r\n\r\n'


def blocks(count: int) -> str:
    return "".join(BLOCK.format(n=n, label=("Other", "Entity-Destination(e1,e2)")[n % 2]) for n in range(count))


def test_semevals_blocks_are_read_and_recognised(tmp_path: Path) -> None:
    for name in ("TRAIN_FILE.TXT", "TEST_FILE_FULL.TXT"):
        (tmp_path / name).write_text(blocks(30), "utf-8")
    found = look(tmp_path, "relation_extraction")
    assert found is not None
    assert dict(found.keys) == {"format": "semeval"}
    assert (found.said["labels"], found.said["share"]) == (2, "50%")
    written, rows = recipe(tmp_path, Path("task8"))
    assert rows == 30
    assert 'task = "relation_extraction"' in written
    assert 'test = "task8/TEST_FILE_FULL.TXT"' in written
    (tmp_path / "recipe.toml").write_text(written.replace("task8/", ""), "utf-8")
    assert load_recipe(tmp_path / "recipe.toml", ()).recipe.options == {"around": 4, "hide": 0.1}


def test_a_table_of_marked_texts_is_no_plain_classification(tmp_path: Path) -> None:
    lines = [f'"A <e1>x{n}</e1> of <e2>y</e2>",{"ab"[n % 2]}' for n in range(60)]
    (tmp_path / "a.csv").write_text("sentence,relation\n" + "\n".join(lines) + "\n", "utf-8")
    found = look(tmp_path / "a.csv", "relation_extraction")
    assert found is not None
    assert dict(found.keys) == {"columns": {"text": "sentence", "label": "relation"}}
    (tmp_path / "b.csv").write_text("text,label\n" + "".join(f"word {n},{'ab'[n % 2]}\n" for n in range(60)), "utf-8")
    assert look(tmp_path / "b.csv", "relation_extraction") is None


def test_a_row_keeps_its_marks_through_cleaning_and_storing() -> None:
    row = marked.canonical({"text": "the old king saw it", "e1": [12, 16], "e2": [4, 7], "label": "sees"})
    assert row == {"text": "the <e2>old</e2> king<e1> saw</e1> it", "marked": "saw · old", "label": "sees"}
    row = marked.canonical({"text": "a <e1>cafe\u0301</e1> in <e2>Paris</e2>", "label": "in"})
    clean = shapes.mapped(row, filters.normalize)
    assert clean["marked"] == "café · Paris"
    assert shapes.loaded(shapes.stored(clean)) == clean


@pytest.mark.parametrize(
    "text",
    ["no marks", "<e1>a</e1> b", "<e1>a</e1> <e1>b</e1>", "<e1>a <e2>b</e2></e1>", "<e1></e1> <e2>b</e2>",
     "<e1>a</e2> <e2>b</e1>"],
)  # fmt: skip
def test_marks_that_do_not_mark_two_things_are_a_flaw(text: str) -> None:
    with pytest.raises(Flaw) as caught:
        marked.canonical({"text": text, "label": "x"})
    assert caught.value.key == "marks"


@pytest.mark.parametrize(
    "spans", [{"e1": [0, 99], "e2": [1, 2]}, {"e1": [2, 1], "e2": [1, 2]}, {"e1": 3, "e2": [1, 2]}]
)
def test_a_span_outside_the_text_is_a_flaw(spans: dict[str, Any]) -> None:
    with pytest.raises(Flaw) as caught:
        marked.canonical({"text": "some text", "label": "x", **spans})
    assert caught.value.key == "span_outside"


def test_a_block_without_its_relation_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(
            tmp_path, "a.txt", blocks(3) + '9\t"A <e1>b</e1> <e2>c</e2>"\nComment:\n', format="semeval", shape="marked"
        )
    assert caught.value.code == "E208"
    assert caught.value.where == "a.txt:13"
