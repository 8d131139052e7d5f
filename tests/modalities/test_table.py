"""A table as ids and values: what is learned from the rows to train on, and what other rows become."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from danlu.errors import UserError
from danlu.modalities.table import Table

ROWS: list[dict[str, Any]] = [
    {"age": 20 + n % 30, "pay": f"{1.5 * n}", "kind": "abc"[n % 3], "of": "x", "name": f"n{n}", "id": n}
    for n in range(60)
]


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.fit(map(json.dumps, ROWS))


def test_numbers_are_standardised_and_categories_have_ids(table: Table) -> None:
    encoded = [table.encode(row) for row in ROWS]
    values = np.array([each["values"] for each in encoded])
    assert [column.name for column in table.columns] == ["age", "pay", "kind"]
    assert values[:, :2].mean(0) == pytest.approx([0, 0], abs=1e-6)
    assert values[:, :2].std(0) == pytest.approx([1, 1], abs=1e-6)
    ids = np.array([each["input_ids"] for each in encoded])
    assert len(set(ids[:, 2])) == 3
    assert len(set(ids[:, 0])) == 1
    assert set(ids[:, 0]).isdisjoint(ids[:, 1])
    assert ids.max() < table.vocab_size
    assert ids.min() > table.pad_id


def test_columns_that_tell_nothing_are_left_out_and_named(table: Table) -> None:
    assert table.left_out == {"of": "same", "name": "names", "id": "names"}


def test_what_is_missing_and_what_is_unknown_is_said(table: Table) -> None:
    row = {"age": None, "pay": "?", "kind": "z"}
    assert table.said(row) == {"missing": ["age", "pay"], "unknown": ["kind"]}
    assert table.said({"kind": "a"}) == {"missing": ["age", "pay"]}
    assert table.said(ROWS[0]) == {}
    assert table.encode(row)["values"].tolist() == [1.0, 1.0, 1.0]
    assert len(set(table.encode(row)["input_ids"]) & set(table.encode(ROWS[0])["input_ids"])) == 0


def test_what_it_says_of_a_row_can_be_read_back(table: Table) -> None:
    assert table.decode(table.encode(ROWS[7])) == pytest.approx({"age": 27, "pay": 10.5, "kind": "b"})
    assert table.show(table.encode({"age": 30, "kind": "c"})["input_ids"]) == ["age=#", "pay=?", "kind=c"]


def test_it_comes_back_from_a_folder(table: Table, tmp_path: Path) -> None:
    table.save(tmp_path)
    again = Table.load(tmp_path)
    assert (again.vocab_size, again.left_out) == (table.vocab_size, table.left_out)
    assert again.encode(ROWS[3])["input_ids"] == table.encode(ROWS[3])["input_ids"]
    (tmp_path / "table.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match="E301"):
        Table.load(tmp_path)


@pytest.mark.parametrize(
    ("row", "code"),
    [({"age": "old"}, "E264"), ({"age": [1]}, "E264"), ({"agee": 3}, "E266")],
)
def test_a_row_that_is_not_of_the_table_is_refused(table: Table, row: dict[str, Any], code: str) -> None:
    with pytest.raises(UserError) as caught:
        table.encode(row)
    assert caught.value.code == code


def test_a_table_in_which_no_column_tells_anything_is_refused() -> None:
    with pytest.raises(UserError, match="E265"):
        Table.fit([{"a": 1, "name": str(index) + "x"} for index in range(30)])


def test_rare_categories_train_what_stands_for_unknown_ones() -> None:
    rows = [{"kind": "a" if index else "once", "n": index % 4} for index in range(20)]
    table = Table.fit(rows)
    assert table.said(rows[0]) == {"unknown": ["kind"]}


def test_a_few_texts_among_numbers_are_mistakes_and_many_are_categories() -> None:
    few = Table.fit([{"n": "abc" if index == 7 else index % 13} for index in range(40)])
    with pytest.raises(UserError, match="'abc'"):
        few.encode({"n": "abc"})
    many = Table.fit([{"n": "abc" if index % 4 == 0 else index % 3} for index in range(40)])
    assert many.said({"n": "abc"}) == {}


def test_sums_of_its_vectors_are_a_linear_layer_on_numbers_and_one_hot_categories(table: Table) -> None:
    embed: Any = table.embed(5)
    torch.nn.init.normal_(embed.cells.weight, generator=torch.Generator().manual_seed(1))
    batch = table.collate([table.encode(row) for row in ROWS[:6]])
    dense = torch.zeros(6, table.vocab_size)
    for place, row in enumerate(ROWS[:6]):
        encoded = table.encode(row)
        dense[place, torch.tensor(encoded["input_ids"])] = torch.from_numpy(encoded["values"])
    found = embed(batch["input_ids"], batch["values"]).sum(1)
    assert torch.allclose(found, dense @ embed.cells.weight, atol=1e-5)


def test_other_rows_change_nothing_that_was_learned() -> None:
    """No statistic comes from rows that are held out: the table is a function of the rows it was fitted on."""
    learned = Table.fit(ROWS[:40])
    before = [learned.encode(row) for row in ROWS[:40]]
    for row in ROWS[40:]:
        learned.encode(row | {"age": 1e6, "kind": "new"})
    assert all(one["input_ids"] == learned.encode(row)["input_ids"] for one, row in zip(before, ROWS, strict=False))
