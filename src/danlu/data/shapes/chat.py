"""A chat: turns of roles. Alpaca's records, ShareGPT's and pairs become one."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from danlu.data.shapes.value import Flaw, Row, text

MARK = "messages"
COLUMNS = ("messages",)
OPTIONAL = ()
CLEAN = ("normalize", "drop_empty", "drop_garbled", "dedup")
_ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "function_call": "assistant", "tool": "tool", "observation": "tool", "function": "tool",
}  # fmt: skip


def canonical(row: Mapping[str, Any]) -> Row:
    from danlu.data.shapes import holds

    if not holds(row, "chat"):
        raise Flaw("shape", wanted=" + ".join(COLUMNS), found=", ".join(map(str, row)))
    turns = _turns(row)
    if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in turns):
        raise Flaw("no_answer")
    return {"messages": turns}


def plain(row: Row) -> str:
    return "\n".join(turn["content"] for turn in row["messages"])


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return {"messages": [{**turn, "content": change(turn["content"])} for turn in row["messages"]]}


def stored(row: Row) -> dict[str, str]:
    return {"messages": json.dumps(row["messages"], ensure_ascii=False)}


def loaded(row: Mapping[str, Any]) -> Row:
    return {"messages": json.loads(row["messages"])}


def _turns(row: Mapping[str, Any]) -> list[dict[str, str]]:
    if "messages" in row:
        return _spoken(row["messages"], "messages", "role", "content")
    if "conversations" in row:
        return _introduced(row) + _spoken(_sharegpt(row), "conversations", "from", "value")
    if "instruction" in row:
        return _alpaca(row)
    return [_turn("user", row["prompt"], "prompt"), _turn("assistant", row["completion"], "completion")]


def _turn(role: str, value: Any, name: str) -> dict[str, str]:
    return {"role": role, "content": text(value, name)}


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
    question = text(row["instruction"], "instruction")
    if row.get("input"):
        question += "\n" + text(row["input"], "input")
    return [*turns, _turn("user", question, "instruction"), _turn("assistant", row["output"], "output")]


def _exchanges(history: Any) -> list[Any]:
    """Earlier questions and answers of an Alpaca record."""
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise Flaw("turns", name="history")
    return history
