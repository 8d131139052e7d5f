"""Every shape of a row keeps its contract: to a file and back, its texts changed, its columns as it states them."""

from typing import get_args

import numpy as np
import pytest

from danlu import pixels
from danlu.config import PICTURED, Data
from danlu.data import filters, formats, shapes

SEEN = pixels.png(np.zeros((2, 3), np.uint8))
RECORDS = {
    "text": {"text": "One story."},
    "pair": {"prompt": "Who?", "completion": "He."},
    "chat": {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "He."}]},
    "labelled": {"text": "One.", "text_pair": "Two.", "label": 1.0},
    "multilabelled": {"text": "Some.", "labels": "a| b |a"},
    "choice": {"text": "Who so?", "choices": ["Tom", "Rob"], "label": "B"},
    "alike": {"text": "One so.", "positive": "Two so.", "negative": "No more.", "score": 0.5},
    "question": {"question": "Who so?", "context": "Tom is so.", "answers": ["Tom"]},
    "marked": {"text": "The <e1>child</e1> is in the <e2>house</e2>.", "label": "in"},
    "tagged": {"text": "Rome is big.", "spans": [[0, 4, "place"]]},
    "scored": {"text": "One.", "text_pair": "Two.", "score": 3},
    "targeted": {"text": "One so.", "target": "Two no."},
    "picture": {"image": SEEN, "label": 7, "name": "seven.png"},
    "masked": {"image": SEEN, "mask": pixels.png(np.eye(2, 3, dtype=np.uint8)), "void": 0, "name": "two.png"},
    "boxed": {"image": SEEN, "boxes": [[0, 0, 2, 1, "cell"], [1, 0, 3, 2, 7]], "name": "two.png"},
    "record": {"age": " 39 ", "work": "?", "rich": True, "label": "no."},
}


def test_the_recipe_can_name_every_shape_and_format() -> None:
    assert set(get_args(Data.model_fields["format"].annotation)) == {"auto", *formats._READERS}
    assert set(get_args(Data.model_fields["shape"].annotation)) == {"auto", *shapes.names()}
    assert set(RECORDS) == set(shapes.names()), "a new shape needs a record here"
    assert all(step in filters.STEPS for shape in shapes.names() for step in shapes.of(shape).CLEAN)


@pytest.mark.parametrize("shape", shapes.names())
def test_a_row_goes_to_a_file_and_comes_back(shape: str) -> None:
    row = shapes.canonical(RECORDS[shape], shape)
    kept = shapes.stored(row)
    assert all(isinstance(value, str) for value in kept.values())
    columns = {*shapes.of(shape).COLUMNS, *shapes.of(shape).OPTIONAL, "text"}
    assert set(kept) <= columns
    whole = {name: kept.get(name) for name in columns}
    assert shapes.loaded(whole | {"text": kept.get("text", shapes.plain(row))}) == row
    if shape != "question":  # whose answers are pairs then
        assert shapes.canonical(row, shape) == row


def swapped(text: str) -> str:
    return text.replace("o", "u")


@pytest.mark.parametrize("shape", shapes.names())
def test_all_its_texts_are_changed_and_nothing_else(shape: str) -> None:
    row = shapes.canonical(RECORDS[shape], shape)
    changed = shapes.mapped(row, swapped)
    if shape not in ("record", *PICTURED):  # whose cells are names and numbers; pixels
        assert shapes.plain(changed) == swapped(shapes.plain(row)) != shapes.plain(row)
    assert changed.keys() == row.keys()


@pytest.mark.parametrize("shape", shapes.names())
def test_a_record_without_its_columns_is_flawed(shape: str) -> None:
    with pytest.raises(shapes.Flaw):
        shapes.canonical({"something": "else"}, shape)
