"""The shapes of a row, and how the shapes of others become ours: text, prompt/completion pairs, chats.

Recognised: text; prompt + completion; messages; Alpaca (instruction, input, output); ShareGPT (conversations).
Labelled rows are read where a task needs them: a text, or two of them, and the label that stands for it.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

Shape = Literal["text", "pair", "chat", "labelled"]
Row = dict[str, Any]

COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("text",), "pair": ("prompt", "completion"), "chat": ("messages",), "labelled": ("text", "label"),
}  # fmt: skip
OPTIONAL: dict[str, tuple[str, ...]] = {"labelled": ("text_pair",)}  # columns that some rows of a shape have
_ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "function_call": "assistant", "tool": "tool", "observation": "tool", "function": "tool",
}  # fmt: skip


class Flaw(Exception):
    """What is wrong with one record: a key under [data.flaw] of the messages, and its fields."""

    def __init__(self, key: str, /, **fields: Any):
        super().__init__(key, fields)
        self.key, self.fields = key, fields


def renamed(raw: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    """The record with ours = "yours" applied.

    Raises:
        Flaw: column, a named column is absent.
    """
    absent = [yours for yours in columns.values() if yours not in raw]
    if absent:
        raise Flaw("column", column=absent[0], found=", ".join(raw))
    return {**raw, **{ours: raw[yours] for ours, yours in columns.items()}}


def shape_of(row: Mapping[str, Any]) -> Shape | None:
    """The shape of a renamed record, by the names of its fields; None when there is none."""
    if "messages" in row or "conversations" in row or {"instruction", "output"} <= row.keys():
        return "chat"
    if {"prompt", "completion"} <= row.keys():
        return "pair"
    return "text" if "text" in row else None


def holds(row: Mapping[str, Any], shape: Shape) -> bool:
    """Whether a record has what a row of that shape needs; a pair is a chat of two turns."""
    return shape_of(row) in ("chat", "pair") if shape == "chat" else set(COLUMNS[shape]) <= row.keys()


def canonical(row: Mapping[str, Any], shape: Shape) -> Row:
    """The record in our columns for `shape`; a pair becomes a chat where chats are wanted.

    Raises:
        Flaw: a field is absent, is no text, or holds half of a surrogate pair; a chat without an answer.
    """
    if shape == "labelled":
        return _labelled(row)
    if not holds(row, shape):
        raise Flaw("shape", wanted=" + ".join(COLUMNS[shape]), found=", ".join(map(str, row)))
    if shape == "chat":
        return {"messages": _chat(row)}
    return {name: _text(row[name], name) for name in COLUMNS[shape]}


def plain(row: Row) -> str:
    """All text of a canonical row, as one string: what is filtered and compared."""
    if "messages" in row:
        return "\n".join(turn["content"] for turn in row["messages"])
    if "text" in row:
        return str(row["text"]) if row.get("text_pair") is None else f"{row['text']}\n{row['text_pair']}"
    return f"{row['prompt']}\n{row['completion']}"


def content(row: Row) -> str:
    """Canonical JSON of a row's content: what is hashed."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def mapped(row: Row, change: Any) -> Row:
    """The row with `change` (str -> str) applied to each of its texts."""
    if "messages" in row:
        return {"messages": [{**turn, "content": change(turn["content"])} for turn in row["messages"]]}
    return {name: value if name == "label" else change(value) for name, value in row.items()}


def stored(row: Row) -> dict[str, str]:
    """The row as strings for a parquet file: messages as JSON, all of its text in `text`."""
    if "messages" in row:
        return {"messages": json.dumps(row["messages"], ensure_ascii=False)}
    return row | {"text": plain(row)} if "label" in row else row


def loaded(row: Mapping[str, Any]) -> Row:
    """A row as it was before `stored`, without id and source."""
    if row.get("messages"):
        return {"messages": json.loads(row["messages"])}
    if row.get("label") is not None:
        first, second = texts(row)
        return {"text": first, "label": row["label"]} | ({"text_pair": second} if second is not None else {})
    return {name: row[name] for name in COLUMNS["pair" if row.get("prompt") is not None else "text"]}


def texts(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """The one text of a stored labelled row, or its two."""
    pair = row.get("text_pair")
    return (row["text"], None) if pair is None else (row["text"].removesuffix(f"\n{pair}"), pair)


def _labelled(row: Mapping[str, Any]) -> Row:
    if absent := [name for name in COLUMNS["labelled"] if name not in row]:
        raise Flaw("column", column=absent[0], found=", ".join(map(str, row)))
    texts = {name: _text(row[name], name) for name in ("text", "text_pair") if row.get(name) is not None}
    return {"text": "", **texts, "label": _label(row["label"])}


def _label(value: Any) -> str:
    """A label as a string: 1, 1.0 and "1" are one; true and "true" are one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Flaw("no_label")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return _text(value, "label").strip()


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Flaw("type", name=name, found=_kind(value))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Flaw("surrogate", name=name) from None
    return value


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", bool: "true/false", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _chat(row: Mapping[str, Any]) -> list[dict[str, str]]:
    turns = _turns(row)
    if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in turns):
        raise Flaw("no_answer")
    return turns


def _turns(row: Mapping[str, Any]) -> list[dict[str, str]]:
    if "messages" in row:
        return _spoken(row["messages"], "messages", "role", "content")
    if "conversations" in row:
        return _introduced(row) + _spoken(_sharegpt(row), "conversations", "from", "value")
    if "instruction" in row:
        return _alpaca(row)
    return [_turn("user", row["prompt"], "prompt"), _turn("assistant", row["completion"], "completion")]


def _turn(role: str, value: Any, name: str) -> dict[str, str]:
    return {"role": role, "content": _text(value, name)}


def _spoken(turns: Any, name: str, role: str, said: str) -> list[dict[str, str]]:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise Flaw("turns", name=name)
    unknown = [turn.get(role) for turn in turns if _ROLES.get(str(turn.get(role))) is None]
    if unknown:
        raise Flaw("role", found=str(unknown[0]), known=", ".join(_ROLES))
    return [_turn(_ROLES[turn[role]], turn.get(said), f"{name}.{said}") for turn in turns]


def _introduced(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The system turn of a ShareGPT record: its own, or the tools it may call."""
    said = "\n\n".join(str(row[name]) for name in ("system", "tools") if row.get(name))
    return [_turn("system", said, "system")] if said else []


def _sharegpt(row: Mapping[str, Any]) -> list[Any]:
    """The turns, followed by the chosen answer where the record is a preference."""
    chosen = row.get("chosen")
    return [*row["conversations"], chosen] if isinstance(chosen, dict) else row["conversations"]


def _alpaca(row: Mapping[str, Any]) -> list[dict[str, str]]:
    turns = [_turn("system", row["system"], "system")] if row.get("system") else []
    for asked, answered in _exchanges(row.get("history") or []):
        turns += [_turn("user", asked, "history"), _turn("assistant", answered, "history")]
    question = _text(row["instruction"], "instruction")
    if row.get("input"):
        question += "\n" + _text(row["input"], "input")
    return [*turns, _turn("user", question, "instruction"), _turn("assistant", row["output"], "output")]


def _exchanges(history: Any) -> list[Any]:
    """Earlier questions and answers of an Alpaca record."""
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise Flaw("turns", name="history")
    return history
