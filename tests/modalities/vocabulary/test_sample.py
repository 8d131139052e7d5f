"""The sample a vocabulary is learned from: even, bounded, the same every time; and the size that fits."""

import tracemalloc
from collections import Counter

from danlu.modalities.vocabulary.sample import auto_size, characters, pieces, thin


def test_a_short_stream_is_kept_whole() -> None:
    assert thin(["ab", "", "c" * 40_000]) == ["ab", "c" * 16_384, "c" * 16_384, "c" * 7_232]


def test_a_long_stream_is_thinned_evenly() -> None:
    kept = thin((f"{index:04d}" for index in range(1000)), limit=1000)
    numbers = [int(text) for text in kept]
    assert numbers == list(range(0, 1000, 4))


def test_the_limit_counts_bytes() -> None:
    assert len(thin(["红" * 10] * 64, limit=300)) == 8


def test_memory_does_not_grow_with_the_stream() -> None:
    tracemalloc.start()
    thin((f"{index:010d}" * 1000 for index in range(4000)), limit=1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def test_pieces_are_the_text() -> None:
    assert "".join(pieces(["x" * 50, "y"], size=16)) == "x" * 50 + "y"


def test_characters_are_counted() -> None:
    text = "红楼梦 红楼 \U0001f600红\n"
    assert dict(characters([text, text])) == Counter(text * 2)
    assert characters(["bbaac"]) == [("a", 2), ("b", 2), ("c", 1)]


def test_the_vocabulary_grows_with_text_and_with_its_script() -> None:
    english = ["to be or not to be " * 100]
    chinese = ["".join(chr(0x4E00 + index) for index in range(3000)) * 3]
    sizes = [auto_size(english, total) for total in (10_000, 1_000_000, 10_000_000, 10**12)]
    assert sizes == [512, 2624, 7808, 32_768]
    assert auto_size(chinese, 1_000_000) - auto_size(english, 1_000_000) > 2_900
