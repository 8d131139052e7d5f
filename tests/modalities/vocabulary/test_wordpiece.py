"""WordPiece: the ids of transformers' BertTokenizer on the same vocabulary, its slow Python form included."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from danlu.modalities.text import Text

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ANY = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not any(name in text for name in SPECIAL))


@pytest.fixture(scope="module")
def folder(texts: dict[str, Text], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wordpiece")
    texts["wordpiece"].save(path)
    return path


@pytest.fixture(scope="module")
def bert(folder: Path) -> BertTokenizer:
    return BertTokenizer(vocab=str(folder / "vocab.txt"))


@settings(deadline=None)
@given(value=ANY)
def test_ids_are_bert_s(texts: dict[str, Text], bert: BertTokenizer, value: str) -> None:
    assert texts["wordpiece"].encode(value) == bert.encode(value, add_special_tokens=False)


def test_ids_are_bert_s_on_real_text(
    texts: dict[str, Text], bert: BertTokenizer, folder: Path, shared_data: Path
) -> None:
    slow = BertTokenizerLegacy(str(folder / "vocab.txt"))
    for name in ("tinyshakespeare/input.txt", "zh_classic_novels/红楼梦.txt"):
        value = (shared_data / name).read_text("utf-8")[:20_000]
        ids = texts["wordpiece"].encode(value)
        assert ids == bert.encode(value, add_special_tokens=False)
        assert ids == slow.convert_tokens_to_ids(slow.tokenize(value))


def test_punctuation_and_chinese_characters_have_no_inner_form(texts: dict[str, Text], folder: Path) -> None:
    vocabulary = (folder / "vocab.txt").read_text("utf-8").split("\n")
    assert tuple(vocabulary[:5]) == SPECIAL
    assert "回" in vocabulary
    assert not {"##回", "##.", "##，"} & {*vocabulary}
