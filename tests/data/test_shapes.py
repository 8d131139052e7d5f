"""Rows of other people's shapes become ours; what cannot is said with a reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu import messages
from danlu.data import shapes
from danlu.data.shapes import Flaw

_CHAT = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好！"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": _CHAT},
        {"instruction": "你好", "input": "", "output": "您好！"},
        {"instruction": "你好", "output": "您好！"},
        {"conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "您好！"}]},
        {
            "conversations": [{"from": "human", "value": "你好"}],
            "chosen": {"from": "gpt", "value": "您好！"},
            "rejected": {},
        },
        {"prompt": "你好", "completion": "您好！"},
    ],
)
def test_every_chat_becomes_the_same_messages(row: shapes.Row) -> None:
    assert shapes.canonical(row, "chat") == {"messages": _CHAT}


def test_alpaca_input_system_and_history_keep_their_order() -> None:
    row = {"instruction": "sum", "input": "1 2", "output": "3", "system": "be brief", "history": [["a", "b"]]}
    said = [(turn["role"], turn["content"]) for turn in shapes.canonical(row, "chat")["messages"]]
    assert said == [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "sum\n1 2"), ("assistant", "3")]


def test_tool_calls_keep_their_roles() -> None:
    turns = [("human", "q"), ("function_call", "{}"), ("observation", "1"), ("gpt", "a")]
    row = {"conversations": [{"from": who, "value": said} for who, said in turns], "tools": "[]"}
    roles = [turn["role"] for turn in shapes.canonical(row, "chat")["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("row", "shape", "key"),
    [
        ({"text": None}, "text", "type"),
        ({"text": 3}, "text", "type"),
        ({"text": "\ud800"}, "text", "surrogate"),
        ({"body": "x"}, "text", "shape"),
        ({"text": "x"}, "chat", "shape"),
        ({"messages": _CHAT}, "text", "shape"),
        ({"messages": []}, "chat", "turns"),
        ({"messages": "hi"}, "chat", "turns"),
        ({"messages": ["hi"]}, "chat", "turns"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "chat", "role"),
        ({"messages": [{"role": "user", "content": "x"}]}, "chat", "no_answer"),
        ({"messages": [{"role": "assistant", "content": None}]}, "chat", "type"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "chat", "role"),
        ({"instruction": "x", "output": " "}, "chat", "no_answer"),
        ({"instruction": "x", "output": "y", "history": [1]}, "chat", "turns"),
        ({"conversations": {"from": "human"}}, "chat", "turns"),
        ({"conversations": None}, "chat", "turns"),
        ({"prompt": "x", "completion": []}, "pair", "type"),
        ({"text": "x", "labels": None}, "multilabelled", "no_labels"),
        ({"text": "x", "labels": 3}, "multilabelled", "labels"),
    ],
)
def test_flaws_have_a_reason_in_words(row: shapes.Row, shape: shapes.Shape, key: str) -> None:
    with pytest.raises(Flaw) as caught:
        shapes.canonical(row, shape)
    assert caught.value.key == key
    assert messages.text(f"data.flaw.{key}", **caught.value.fields)


def test_columns_are_renamed_and_a_missing_one_is_named() -> None:
    assert shapes.renamed({"review": "x"}, {"text": "review"})["text"] == "x"
    with pytest.raises(Flaw) as caught:
        shapes.renamed({"review": "x"}, {"text": "comment"})
    assert caught.value.fields == {"column": "comment", "found": "review"}


_texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.one_of(
        st.fixed_dictionaries({"text": _texts}),
        st.fixed_dictionaries({"prompt": _texts, "completion": _texts}),
        st.fixed_dictionaries(
            {"messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": _texts}))}
        ),
    )
)
def test_stored_rows_come_back(row: shapes.Row) -> None:
    stored = shapes.stored(row)
    assert all(isinstance(value, str) for value in stored.values())
    assert shapes.loaded({"id": "1", **stored}) == row
    assert json.loads(shapes.content(row)) == row


def test_the_shape_of_a_row_is_told_without_importing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked several times for every row: looking the modules up took a third of the time of reading."""
    shapes.plain({"text": "all are known from here on"})
    monkeypatch.setattr(shapes.importlib, "import_module", lambda name: pytest.fail(f"{name} was imported again"))
    row = {"messages": _CHAT}
    assert shapes.loaded(shapes.stored(row)) == row
    assert shapes.plain({"text": "a text"}) == "a text"


def test_a_question_of_nothing_is_empty() -> None:
    row = shapes.canonical({"question": " ", "context": "Here it is.", "answers": ["it"]}, "question")
    assert shapes.plain(row) == ""
    assert shapes.plain({**row, "question": "What?"}) == "What?\nHere it is."
