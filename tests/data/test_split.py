"""Held-out rows depend on content alone and are there whenever they can be."""

import random

import pytest

from danlu.data import split

_SHARES = {"valid": 0.05, "test": 0.1}
_GOLDEN = ["valid", "train", "train", "train", "valid"]
_POSITION = 0.1428558412349175


def test_shares_are_met() -> None:
    names = [split.split_at(split.position(f"text {number}"), _SHARES) for number in range(20_000)]
    assert names.count("valid") / len(names) == pytest.approx(0.05, abs=0.005)
    assert names.count("test") / len(names) == pytest.approx(0.1, abs=0.006)


def test_the_split_of_a_text_never_changes() -> None:
    assert [split.split_at(split.position(text), _SHARES) for text in ("a", "b", "丹", "炉", "danlu")] == _GOLDEN
    assert split.position("danlu") == pytest.approx(_POSITION)


@pytest.mark.parametrize("rows", range(3, 40))
def test_no_split_is_empty_where_rows_suffice(rows: int) -> None:
    generator = random.Random(rows)
    for places in ([generator.random() for _ in range(rows)], [0.0] * rows, [0.999] * rows):
        assert set(split.assign(places, _SHARES)) == set(split.NAMES)


def test_a_share_of_zero_stays_empty_and_too_few_rows_are_left_alone() -> None:
    assert set(split.assign([n / 50 for n in range(50)], {"valid": 0.0, "test": 0.0})) == {"train"}
    assert split.assign([0.5, 0.6], _SHARES) == ["train", "train"]


def test_filling_an_empty_split_moves_one_row_only() -> None:
    places = [0.2 + n / 100 for n in range(30)]
    names = split.assign(places, _SHARES)
    assert (names.count("test"), names.count("valid"), names[0], names[1]) == (1, 1, "test", "valid")


def test_rows_of_a_group_stay_together_but_not_where_too_many_share_it() -> None:
    rows = [("pair", "a"), ("pair", "b"), ("", "c"), *(("yes no", str(n)) for n in range(3))]
    assert split.keys(rows, 2) == ["pair", "pair", "c", "0", "1", "2"]
    assert split.keys(rows, float("inf")) == ["pair", "pair", "c", *["yes no"] * 3]
