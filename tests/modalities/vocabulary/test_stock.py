"""Tokenizers of other libraries' folders give the ids of the library that wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from danlu.errors import UserError
from danlu.modalities.text import Text

FIXTURES = Path(__file__).parent / "fixtures"
TEXTS = [
    "The cat sat on a mat.", "  seven   small children  ", "Crème BRÛLÉE, naïve!", "猫坐在垫子上。and trains",
    "don't we'll 1234567", "tabs\tand\nlines\n\n", "unseen zebra 😀 x", "", "[CLS] [MASK] <s> </s> <|endoftext|>"
]  # fmt: skip
WORDS = ["the", "cat", "sat", "on", "a", "mat", "##s", "##n", "cr", "##eme", "br", "##ulee", "naive", "!", ",", ".",
         "猫", "坐", "on", "z", "##ebra", "The", "Cr", "##ème", "1234", "##567"]  # fmt: skip


def wordpiece(folder: Path, **settings: object) -> Path:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]
    (folder / "vocab.txt").write_text("\n".join(names) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return folder


def byte_level(folder: Path, special: list[str]) -> Path:
    """vocab.json and merges.txt learned from a few sentences."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(TEXTS[:6] * 9, trainer)
    made.model.save(str(folder))
    merges = (folder / "merges.txt").read_text("utf-8")
    assert merges.startswith("#version") and merges.count("\n") > 50
    return folder


def same_ids(folder: Path, stock: object) -> None:
    ours = Text.load(folder)
    for text in TEXTS[:-1]:
        assert ours.encode(text) == stock.encode(text, add_special_tokens=False), text  # type: ignore[attr-defined]
        assert ours.framed(text)["input_ids"] == stock(text)["input_ids"], text  # type: ignore[operator]
    assert not set(ours.encode(TEXTS[-1])) & set(ours.control.values()), "a user's text never becomes a control token"


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}, {"strip_accents": False}])
def test_a_vocabulary_of_lines(tmp_path: Path, settings: dict[str, object]) -> None:
    folder = wordpiece(tmp_path, **settings)
    stock = transformers.BertTokenizer.from_pretrained(folder)
    same_ids(folder, stock)
    pair = Text.load(folder).framed("the cat", "a mat")
    expected = stock("the cat", "a mat")
    assert pair == {"input_ids": expected["input_ids"], "type_ids": expected["token_type_ids"]}
    assert Text.load(folder).pad_id == stock.pad_token_id


def test_a_vocabulary_with_merges(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, ["<|endoftext|>"])
    same_ids(folder, transformers.GPT2Tokenizer.from_pretrained(folder))
    assert Text.load(folder).end_id == 0


def test_a_vocabulary_with_merges_and_frames(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    stock = transformers.RobertaTokenizer.from_pretrained(folder)
    same_ids(folder, stock)
    pair = stock("the cat", "a mat")["input_ids"]
    assert Text.load(folder).framed("the cat", "a mat")["input_ids"] == pair


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sentencepiece_models(kind: str, tmp_path: Path) -> None:
    """`expected.json` holds what sentencepiece 0.2.3 gives for the two models, which it made of a few sentences."""
    shutil.copy(FIXTURES / f"{kind}.model", tmp_path / "tokenizer.model")
    said = json.loads((FIXTURES / "expected.json").read_text("utf-8"))
    text = Text.load(tmp_path)
    assert text.kind == "sentencepiece"
    for value, ids, back in zip(said["texts"], said[kind]["ids"], said[kind]["texts"], strict=True):
        assert text.encode(value) == ids, value
        if "⁇" not in back:
            assert text.decode(ids) == back


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_damaged_sentencepiece_models(kind: str, tmp_path: Path) -> None:
    whole = (FIXTURES / f"{kind}.model").read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 3):
        (tmp_path / "tokenizer.model").write_bytes(whole[:cut])
        with pytest.raises(UserError) as caught:
            Text.load(tmp_path)
        assert caught.value.code == "E301"


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Text.load(tmp_path)
    assert caught.value.code == "E301"


def test_saved_again_it_is_the_same(tmp_path: Path) -> None:
    text = Text.load(wordpiece(tmp_path, pad_token="[PAD]", sep_token="[SEP]", cls_token="[CLS]"))
    (tmp_path / "again").mkdir()
    text.save(tmp_path / "again")
    again = Text.load(tmp_path / "again")
    assert [again.framed(each) for each in TEXTS] == [text.framed(each) for each in TEXTS]
    assert (again.pad_id, again.end_id) == (text.pad_id, text.end_id)
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert stock("the cats", "mat")["input_ids"] == text.framed("the cats", "mat")["input_ids"]
