"""Exact match and F1 of answers, against cases counted by hand after the scripts of SQuAD and CMRC 2018."""

import pytest

from danlu.metrics.overlap import best_sentence
from danlu.metrics.reading import is_chinese, scores


@pytest.mark.parametrize(
    ("found", "references", "exact", "f1"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], 1, 1),  # case, article, punctuation
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("Broncos of Denver", ["the Denver Broncos"], 0, 4 / 5),  # a bag: the order does not count
        ("very very good", ["very good good"], 0, 2 * 2 / 6),  # each word as often as both have it
        ("308 points", ["308", "about 308 points"], 0, 4 / 5),  # the nearest reference
        ("a", ["the"], 1, 1),  # nothing is left of both
        ("a", ["cat"], 0, 0),
        ("", [], 1, 1),  # it cannot be answered
        ("Denver", [], 0, 0),
        ("", ["Denver"], 0, 0),
        ("U.S.", ["US"], 1, 1),
    ],
)
def test_english_answers(found: str, references: list[str], exact: float, f1: float) -> None:
    assert scores(found, references, chinese=False) == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
    ("found", "references", "exact", "f1"),
    [
        ("《踢爆》", ["踢爆"], 1, 1),  # signs are left out
        ("光荣和公司", ["光荣和ω-force"], 0, 2 * 3 / (5 + 4)),  # 光 荣 和 of 5, and of 4: ωforce is one
        ("4分钟内", ["4分钟"], 0, 2 * 3 / (4 + 3)),
        ("钟分4", ["4分钟"], 0, 2 * 1 / 6),  # the longest stretch, not a bag
        ("北京大学和清华", ["北京和清华大学"], 0, 2 * 3 / 14),  # 和清华
        ("", ["踢爆"], 0, 0),
        ("", [], 1, 1),
        ("Nexon", ["nexon。"], 1, 1),
    ],
)
def test_chinese_answers(found: str, references: list[str], exact: float, f1: float) -> None:
    assert scores(found, references, chinese=True) == (exact, pytest.approx(f1))


def test_the_language_is_that_of_question_and_references() -> None:
    assert is_chinese(["Who?", "由韩国Nexon"])
    assert not is_chinese(["Who?", "Nexon"])


def test_the_sentence_that_is_most_about_the_question() -> None:
    text = "The king sleeps. The queen sails a silver ship! 国王睡觉。王后在船上。"
    assert best_sentence("Who sails the ship?", text) == "The queen sails a silver ship!"
    assert best_sentence("谁在船上？", text) == "王后在船上。"
    assert best_sentence("?", "") == ""
