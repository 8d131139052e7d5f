"""Pairs of passages: what follows follows, what does not does not, and nothing is longer than there is room for."""

from collections.abc import Iterator

import pytest

from danlu.data.pairs import FALSE, TRUE, Pair, pairs, sentences
from danlu.randomness import stream

ROOM = 40


def documents(count: int = 400) -> Iterator[list[list[int]]]:
    """Each token is the number of its document and its place there."""
    draws = stream(3, "documents")
    for document in range(count):
        lengths = draws.integers(1, 15, size=int(draws.integers(1, 20)))
        ends = lengths.cumsum()
        yield [[document * 1000 + at for at in range(end - size, end)] for end, size in zip(ends, lengths, strict=True)]


def made(way: str) -> list[Pair]:
    return list(pairs(documents(), ROOM, way, stream(0, "pairs")))


@pytest.mark.parametrize("way", ["next", "order"])
def test_half_of_the_pairs_are_as_the_text_had_them(way: str) -> None:
    found = made(way)
    assert len(found) > 500
    assert sum(each.label == TRUE for each in found) / len(found) == pytest.approx(0.5, abs=0.06)
    assert all(0 < len(each.first) + len(each.second) <= ROOM and each.first and each.second for each in found)
    assert sum(len(each.first) + len(each.second) == ROOM for each in found) > len(found) / 3


def test_what_follows_is_of_the_same_document_and_later() -> None:
    for each in made("next"):
        same = each.first[0] // 1000 == each.second[0] // 1000
        assert same == (each.label == TRUE)
        assert not same or each.first[-1] < each.second[0]


def test_what_is_in_order_is_and_what_is_not_is_not() -> None:
    for each in made("order"):
        assert each.first[0] // 1000 == each.second[0] // 1000
        assert (each.first[-1] < each.second[0]) == (each.label == TRUE)
        assert (each.second[-1] < each.first[0]) == (each.label == FALSE)


def test_the_same_documents_give_the_same_pairs() -> None:
    assert made("next") == made("next")


def test_one_document_alone_has_nothing_that_does_not_follow() -> None:
    alone = list(pairs([[[1, 2], [3, 4], [5]] * 20], ROOM, "next", stream(0, "pairs")))
    assert alone
    assert {each.label for each in alone} == {TRUE}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three? 3.14 is pi.", ["One.", "Two! ", "Three? ", "3.14 is pi."]),
        ("你好。再见！是吗？好", ["你好。", "再见！", "是吗？", "好"]),
        ("他说：“走吧。”于是走了。", ["他说：“走吧。”", "于是走了。"]),
        ("line\n\nline two", ["line", "line two"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert [each.strip() for each in sentences(text)] == [each.strip() for each in parts]
