"""Byte-level BPE: tiktoken only where its ids are proved, Qwen2's split rule, Chinese without spaces."""

import random
import time
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from danlu.modalities.text import Text
from danlu.modalities.vocabulary import bpe

ANY = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\t '\u3000aſ1"))


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    corpus = Path(__file__).read_text("utf-8") + "因曾历过一番梦幻之后，故将真事隐去" * 9
    return bpe.train([corpus], 900)


@pytest.fixture(scope="module")
def fast(trained: Tokenizer) -> tiktoken.Encoding:
    proved = bpe.fast(trained)
    assert proved is not None
    return proved


@settings(deadline=None, max_examples=300)
@given(value=ANY)
def test_tiktoken_gives_the_same_ids(trained: Tokenizer, fast: tiktoken.Encoding, value: str) -> None:
    assert fast.encode_ordinary(value) == trained.encode(value).ids


def test_tiktoken_gives_the_same_ids_on_every_script(trained: Tokenizer, fast: tiktoken.Encoding) -> None:
    codes = [code for code in (*range(0x3000), *range(0x3000, 0x32000, 31)) if not 0xD800 <= code < 0xE000]
    values = [form.format(chr(code)) for code in codes for form in ("a{0}b", " {0} \n", "'{0}1{0}{0}!")]
    assert fast.encode_ordinary_batch(values) == [encoding.ids for encoding in trained.encode_batch(values)]


def _byte_level(merges: list[tuple[str, str]]) -> Tokenizer:
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = bpe.train(["x"], 256).pre_tokenizer
    return tokenizer


def test_merges_that_tiktoken_would_join_otherwise_are_refused() -> None:
    provable = _byte_level([("a", "b"), ("ab", "c")])
    doubtful = _byte_level([("a", "b"), ("b", "c"), ("a", "bc")])  # abc is never reached: ab comes first
    assert bpe.fast(provable) is not None
    assert [doubtful.id_to_token(index) for index in doubtful.encode("abc").ids] == ["ab", "c"]
    assert bpe.fast(doubtful) is None


def test_another_split_rule_is_refused(trained: Tokenizer) -> None:
    other = Tokenizer.from_str(trained.to_str())
    other.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "isolated"),
            pre_tokenizers.ByteLevel(use_regex=False, add_prefix_space=False),
        ]
    )
    assert bpe.fast(other) is None


@pytest.mark.parametrize("value", [" " * 1_000_000, " \t" * 60_000, "x" + " " * 99_999 + "y", "a" * 100_000])
def test_long_runs_come_back(texts: dict[str, Text], value: str) -> None:
    assert texts["bpe"].decode(texts["bpe"].encode(value)) == value


def test_a_long_gap_changes_no_id(trained: Tokenizer) -> None:
    text = Text(trained)
    near, over = (f"x{' ' * size}y" for size in (99_998, 100_001))
    assert text.encode(near) == trained.encode(near).ids
    assert text.encode(over) == trained.encode(over).ids


def test_the_split_rule_is_qwen_s() -> None:
    words = pre_tokenizers.Split(Regex(bpe.SPLIT), "isolated").pre_tokenize_str(
        "It's 12 x=foo_bar  \n\n 一回。ok!\n  z"
    )
    assert [word for word, _ in words] == [
        "It", "'s", " ", "1", "2", " x", "=foo", "_bar", "  \n\n", " 一回", "。ok", "!\n", " ", " z",
    ]  # fmt: skip


def test_chinese_without_a_single_space_is_learned_in_time() -> None:
    """Merging inside words of thousands of characters takes 15 times as long."""
    chance = random.Random(0)
    words = ["".join(chr(0x4E00 + int(chance.paretovariate(0.7)) % 6000) for _ in "ab") for _ in range(3000)]
    text = "".join(chance.choice(words) for _ in range(100_000))
    started = time.process_time()
    tokenizer = bpe.train([text], 1500)
    assert time.process_time() - started < 8
    assert any(token in tokenizer.get_vocab() for token in map(_spelled, words))


def _spelled(word: str) -> str:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)[0][0]
