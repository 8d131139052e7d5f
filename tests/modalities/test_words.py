"""Words of raw text, and what tokens can tell apart of them."""

import pytest

from danlu.modalities.text import Text
from danlu.modalities.words import units, words

TEXT = "U.S. visit:  炼丹炉，2011年 café's 😀end हिन्दी"
CORPUS = ["the quick brown fox", "炼丹炉里炼金丹，一炉一炉又一炉。"] * 4


def test_words_are_runs_signs_and_characters() -> None:
    found = [TEXT[a:b] for a, b in words(TEXT)]
    assert found == ["U", ".", "S", ".", "visit", ":", "炼", "丹", "炉", "，", "2011", "年", "café", "'", "s", "😀",
                     "end", "हिन्दी"]  # fmt: skip


@pytest.mark.parametrize("kind", ["bpe", "char", "wordpiece"])
def test_tokens_are_found_in_the_users_own_text(kind: str) -> None:
    """Each id stands for the characters it was made of; units end where both words and tokens end."""
    text = Text.fit(CORPUS, type=kind, vocab_size=420)
    ids, places = text.located(TEXT)
    assert ids == text.encode(TEXT)
    found = units(TEXT, places)
    assert "".join(TEXT[a:b] for a, b, _ in found) == TEXT.replace(" ", "")
    edges = {edge for span in words(TEXT) for edge in span}
    assert all(start in edges and end in edges for start, end, _ in found)
    for start, _, token in found:
        begin, end = places[token]
        assert begin <= start < end


def test_words_that_share_a_token_are_one() -> None:
    assert units("炼丹 a", [(0, 2), (2, 4)]) == [(0, 2, 0), (3, 4, 1)]
    assert units("ab", [(0, 1), (1, 2)]) == [(0, 2, 0)]
    assert units(" ", [(0, 1)]) == []
