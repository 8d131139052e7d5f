"""The encode stage: rows in, the same rows out of the columns, the vocabulary from training rows alone."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from danlu.config import Tokenizer
from danlu.data.columns import Columns
from danlu.data.store import RowWriter
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.modalities.text import Text
from danlu.stages import encode

Rows = dict[str, list[dict[str, Any]]]
LINES = [
    f"The {word} speaks of 梦幻 no. {index}.\n" for index, word in enumerate(["king", "queen", "fool", "ghost"] * 8)
]
TEXTS: Rows = {
    "train": [{"text": line} for line in LINES],
    "valid": [{"text": "ЖЖЖЖЖЖЖЖ unseen"}],
    "test": [],
}
CHAT = [{"role": "user", "content": "Who speaks?"}, {"role": "assistant", "content": "The king."}]


def _prepared(folder: Path, rows: Rows) -> Path:
    columns = ["id", "source", *rows["train"][0]]
    for split, part in rows.items():
        with RowWriter(folder / "rows", split, columns) as writer:
            for index, row in enumerate(part):
                writer.add({"id": f"{index:016x}-00000000", "source": f"plays.txt:{index + 1}", **row})
    return folder


def _run(
    out: Path, inputs: dict[str, Path], task: str = "language_modeling", max_answer: int | None = None, **tokenizer: Any
) -> Any:
    out.mkdir()
    config = {"tokenizer": Tokenizer(**{"type": "bpe"} | tokenizer), "task": task, "max_answer": max_answer}
    context = SimpleNamespace(
        config=config, inputs=inputs, out=out, facts={}, output_hash="", progress=lambda *_: None, view=Silent()
    )
    encode.run(context)  # type: ignore[arg-type]
    return context


def test_the_columns_hold_the_rows(tmp_path: Path) -> None:
    context = _run(tmp_path / "out", {"rows": _prepared(tmp_path, TEXTS)}, vocab_size=320)
    text = Text.load(context.out)
    for split, rows in TEXTS.items():
        columns = Columns(context.out / "columns" / split)
        kept = [columns.row(index)["input_ids"] for index in range(len(columns))]
        assert [text.decode(ids) for ids in kept] == [row["text"] for row in rows]
        assert all(ids[0] == ids[-1] == text.end_id for ids in kept)
        assert columns.flat("input_ids").dtype == np.uint16


def test_the_record_counts_what_is_there(tmp_path: Path) -> None:
    context = _run(tmp_path / "out", {"rows": _prepared(tmp_path, TEXTS)}, vocab_size=280)
    record = json.loads((context.out / "tokens.json").read_text("utf-8"))
    train = record["splits"]["train"]
    assert train["bytes"] == sum(len(line.encode()) for line in LINES)
    assert train["tokens"] == len(Columns(context.out / "columns/train").flat("input_ids"))
    assert record["splits"]["test"] == {"rows": 0, "tokens": 0, "bytes": 0, "bytes_per_token": 0.0}
    assert record["tokenizer"] == {"kind": "bpe", "vocab_size": 280, "encoder": "tiktoken"}
    shown = record["examples"][0]
    assert shown["tokens"][0] == "<|endoftext|>"
    assert "".join(shown["tokens"][1:-1]) == LINES[0]


def test_the_vocabulary_knows_nothing_of_held_out_rows(tmp_path: Path) -> None:
    seen = _run(tmp_path / "out", {"rows": _prepared(tmp_path / "a", TEXTS)}, type="char", vocab_size=400)
    everywhere = TEXTS | {"train": TEXTS["train"] + TEXTS["valid"]}
    known = _run(tmp_path / "all", {"rows": _prepared(tmp_path / "b", everywhere)}, type="char", vocab_size=400)
    assert len(Text.load(known.out).encode("Ж")) == 1 < len(Text.load(seen.out).encode("Ж"))


def test_the_same_rows_give_the_same_hash_and_others_another(tmp_path: Path) -> None:
    rows = _prepared(tmp_path, TEXTS)
    other = _prepared(tmp_path / "other", TEXTS | {"valid": [{"text": "something else"}]})
    hashes = [
        _run(tmp_path / name, {"rows": folder}).output_hash
        for name, folder in zip("abc", (rows, rows, other), strict=True)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_tokenizer_is_taken_over(tmp_path: Path) -> None:
    first = _run(tmp_path / "first", {"rows": _prepared(tmp_path / "a", TEXTS)}, vocab_size=320)
    chats = {split: [{"messages": json.dumps(CHAT)}] for split in ("train", "valid", "test")}
    inputs = {"rows": _prepared(tmp_path / "b", chats), "tokenizer": first.out}
    second = _run(tmp_path / "second", inputs, "instruction", vocab_size=259)
    assert (second.out / "tokenizer.json").read_bytes() == (first.out / "tokenizer.json").read_bytes()
    row = Columns(second.out / "columns/train").row(0)
    text = Text.load(second.out)
    assert text.decode(row["input_ids"][row["loss_mask"] == 1]) == "The king."
    assert row["loss_mask"].dtype == np.uint8


def test_rows_with_a_longer_answer_are_left_out(tmp_path: Path) -> None:
    def chat(*answers: str) -> dict[str, str]:
        turns = [[{"role": "user", "content": "Go on."}, {"role": "assistant", "content": each}] for each in answers]
        return {"messages": json.dumps([turn for pair in turns for turn in pair])}

    chats = [chat("word"), chat("wo" * 200), chat("word", "word"), chat("word", "wo" * 200)]
    words = _run(tmp_path / "words", {"rows": _prepared(tmp_path / "texts", TEXTS)}, vocab_size=320).out
    rows = _prepared(tmp_path / "rows", dict.fromkeys(("train", "valid", "test"), chats))
    inputs = {"rows": rows, "tokenizer": words}
    seen = _run(tmp_path / "out", inputs, "instruction", max_answer=50)
    columns = Columns(seen.out / "columns/train")
    assert [int(columns.row(i)["loss_mask"].sum()) <= 12 for i in range(len(columns))] == [True, True]
    assert json.loads((seen.out / "tokens.json").read_text())["splits"]["test"]["left_out"] == 2
    assert len(Columns(_run(tmp_path / "all", inputs, "instruction").out / "columns/train")) == 4


def test_rows_without_the_column_are_named(tmp_path: Path) -> None:
    rows = {split: [{"text": "a"}] for split in ("train", "valid", "test")}
    with pytest.raises(UserError, match="no column prompt") as problem:
        _run(tmp_path / "out", {"rows": _prepared(tmp_path, rows)}, "instruction")
    assert (problem.value.exit, problem.value.where) == (3, "plays.txt:1")
