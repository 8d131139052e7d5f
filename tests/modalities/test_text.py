"""Text: exact round trips, control tokens out of reach, streams that are always whole text, folders others open."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from danlu.errors import UserError
from danlu.modalities.text import Text

ANY = st.text(st.characters(exclude_categories=["Cs"]))
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "[CLS]", "[SEP]", "[MASK]", "[PAD]")
HOSTILE = st.lists(st.sampled_from([*CONTROL, "<|", "|>", "im_end", " ", "\n"]) | ANY).map("".join)
AWKWARD = [
    "", "\ufeffBOM", "a\r\nb\rc\n",
    "\x00\x1f\x85", "line\u2028sep\u2029", "e\u0301 é", "👨‍👩‍👧‍👦🏳️‍🌈", "𠀀𪚥𰻞", "\u202eabc\u202c",
    "\U0010ffff\ufffe", "   \t\n  x", "It'S we'Re 'ſ", "½²① ٣",
]  # fmt: skip
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.parametrize("value", AWKWARD)
def test_awkward_strings_come_back(exact: Text, value: str) -> None:
    assert exact.decode(exact.encode(value)) == value


@relaxed
@given(value=ANY)
def test_every_string_comes_back(exact: Text, value: str) -> None:
    assert exact.decode(exact.encode(value)) == value


@relaxed
@given(value=HOSTILE)
def test_no_string_yields_a_control_id(text: Text, value: str) -> None:
    assert not {*text.encode(value)} & {*text.control.values()}


@pytest.mark.parametrize("name", CONTROL)
def test_a_control_token_s_name_is_plain_text(exact: Text, name: str) -> None:
    assert exact.decode(exact.encode(name)) == name


def test_control_tokens_are_named_and_silent(text: Text) -> None:
    assert {"<|endoftext|>", "<|im_start|>", "<|im_end|>"} <= text.control.keys()
    assert len({text.end_id, text.start_turn, text.end_turn}) == 3
    assert text.decode([text.start_turn, *text.encode("speak"), text.end_turn]) == "speak"
    assert text.show([text.end_turn, *text.encode("speak")])[0] == "<|im_end|>"
    assert text.token_bytes()[text.end_id] == 0


def test_a_tokenizer_that_is_opened_again_is_not_parsed_again(
    text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A life opens the same one four times, under whatever name; what differs in one token is another."""
    for name in ("base", "columns"):
        (tmp_path / name).mkdir()
        text.save(tmp_path / name)
    first = Text.load(tmp_path / "base")
    monkeypatch.setattr("danlu.modalities.text._kind", lambda _: pytest.fail("it was parsed again"))
    again = Text.load(tmp_path / "columns")
    assert again.encode("hear me speak") == first.encode("hear me speak")
    monkeypatch.undo()
    grown = again.with_control(["<new>"])
    assert grown.encode("hear <new>") == first.encode("hear <new>")
    assert grown.control["<new>"] == first.vocab_size


def test_half_a_surrogate_pair_is_refused(text: Text) -> None:
    with pytest.raises(UnicodeEncodeError):
        text.encode("a\ud800b")


@relaxed
@given(data=st.data())
def test_a_stream_is_the_whole_text_in_whole_characters(text: Text, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, text.vocab_size - 1), max_size=60))
    stream = text.stream()
    parts = [stream.push(index) for index in ids] + [stream.flush()]
    assert "".join(parts) == text.decode(ids)


def test_a_stream_waits_for_the_last_byte(texts: dict[str, Text]) -> None:
    stream = texts["bpe"].stream()
    ids = texts["bpe"].encode("\U0001f600")
    assert len(ids) > 1
    assert [stream.push(index) for index in ids] == [""] * (len(ids) - 1) + ["\U0001f600"]
    assert stream.flush() == ""


def test_token_bytes_add_up_to_the_text(exact: Text) -> None:
    value = "".join(AWKWARD)
    sizes = exact.token_bytes()
    assert sum(sizes[index] for index in exact.encode(value)) == len(value.encode())


@pytest.mark.parametrize("kind", ["bpe", "char", "wordpiece"])
def test_the_same_text_gives_the_same_tokenizer(kind: str, tmp_path: Path) -> None:
    corpus = [f"{word} {word}ing un{word}ed 甄士{word}" for word in ("walk", "talk", "help", "яблоко", "cook", "péter")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Text.fit(corpus, type=kind, vocab_size=320).save(tmp_path / name)
    assert (tmp_path / "one/tokenizer.json").read_bytes() == (tmp_path / "two/tokenizer.json").read_bytes()


def test_the_vocabulary_is_as_large_as_asked(shared_data: Path) -> None:
    corpus = [(shared_data / "tinyshakespeare/input.txt").read_text("utf-8")[:200_000]]
    assert {kind: Text.fit(corpus, type=kind, vocab_size=1024).vocab_size for kind in ("bpe", "wordpiece")} == {
        "bpe": 1024,
        "wordpiece": 1024,
    }


def test_transformers_opens_the_folder_with_equal_ids(text: Text, tmp_path: Path) -> None:
    text.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for value in [*AWKWARD, "Speak, Citizen! 甄士隐梦幻 area(3) * 12\n\n  ok"]:
        assert theirs.encode(value, add_special_tokens=False) == text.encode(value)
    assert {theirs.convert_tokens_to_ids(name) for name in text.control} == {*text.control.values()}
    assert {*text.control} <= {*theirs.all_special_tokens}
    assert theirs.decode([text.end_turn, *text.encode("speak")], skip_special_tokens=True) == "speak"
    assert (theirs.eos_token_id, theirs.pad_token_id) == (text.end_id, text.pad_id)
    assert len(theirs) == text.vocab_size


def test_a_saved_tokenizer_is_the_same_when_loaded(text: Text, tmp_path: Path) -> None:
    text.save(tmp_path)
    loaded = Text.load(tmp_path)
    value = "".join(AWKWARD)
    assert loaded.encode(value) == text.encode(value)
    assert (loaded.control, loaded.kind, loaded.encoder, loaded.token_bytes()) == (
        text.control, text.kind, text.encoder, text.token_bytes(),
    )  # fmt: skip


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="E301"):
        Text.load(tmp_path)


def test_an_unknown_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]], "byte_fallback": False}
    nothing = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    plain = {"version": "1.0", **nothing, "added_tokens": [], "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="E311"):
        Text.load(tmp_path)


def test_a_tokenizer_without_turns_says_so(texts: dict[str, Text], tmp_path: Path) -> None:
    texts["bpe"].save(tmp_path)
    path = tmp_path / "tokenizer.json"
    plain = json.loads(path.read_text("utf-8"))
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] == "<|endoftext|>"]
    path.write_text(json.dumps(plain), "utf-8")
    loaded = Text.load(tmp_path)
    assert loaded.end_id == texts["bpe"].end_id
    with pytest.raises(UserError, match="E310"):
        _ = loaded.end_turn


def test_a_batch_is_padded_on_the_right(texts: dict[str, Text]) -> None:
    text = texts["bpe"]
    batch = text.collate(
        [{"input_ids": [5, 6, 7], "loss_mask": [0, 1, 1], "bytes": 9}, {"input_ids": [8], "loss_mask": [1], "bytes": 1}]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, text.pad_id, text.pad_id]]
    assert batch["segment_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["loss_mask"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch["bytes"].tolist() == [9, 1]
