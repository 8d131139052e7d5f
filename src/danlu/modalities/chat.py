"""The one chat template (ChatML, as Qwen writes it), used to train, chat, serve and export.

A chat is spans of text between control tokens. Each span is encoded whole and as plain text; the same
template in Jinja is saved with the tokenizer, so that other tools build the same ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from danlu.modalities.text import Text

END, START_TURN, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant", "tool")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_ANSWER = "assistant\n"

Message = Mapping[str, str]


@dataclass(frozen=True)
class Control:
    """A control token, by name."""

    name: str


def render(messages: Sequence[Message], *, reply: bool = False) -> list[str | Control]:
    """The spans of a chat; with `reply` it ends where the assistant's next turn begins."""
    spans: list[str | Control] = []
    for message in messages:
        turn = f"{message['role']}\n{message['content']}"
        spans += [Control(START_TURN), turn, Control(END_TURN), "\n"]
    return spans + [Control(START_TURN), _ANSWER] * reply


def encode_chat(text: "Text", messages: Sequence[Message], *, reply: bool = False) -> tuple[list[int], list[int]]:
    """The ids of a chat and, beside each, 1 where it is learned: the assistant's words and the end of its turn."""
    ids: list[int] = []
    learned: list[int] = []
    for message in messages:
        start, turn, end, rest = (_encode(text, span) for span in render([message]))
        answer = message["role"] == "assistant"
        given = _common(text.encode(_ANSWER), turn) if answer else len(turn)
        ids += start + turn + end + rest
        learned += [0] * (len(start) + given) + [1] * (len(turn) - given) + [int(answer)] + [0] * len(rest)
    opening = [index for span in render([], reply=reply) for index in _encode(text, span)]
    return ids + opening, learned + [0] * len(opening)


def prompted(text: "Text", prompt: str, *, chat: bool) -> list[int]:
    """The ids that a model goes on after: of the one turn of a chat, or of a text."""
    if chat:
        return encode_chat(text, [{"role": "user", "content": prompt}], reply=True)[0]
    return [text.end_id, *text.encode(prompt)]


def _encode(text: "Text", span: str | Control) -> list[int]:
    return [text.control[span.name]] if isinstance(span, Control) else text.encode(span)


def _common(header: list[int], turn: list[int]) -> int:
    """How many ids two sequences share from the start.

    An answer that opens with a blank line can share its first token with the header's line end; that token is learned.
    """
    differs = (index for index, (ours, theirs) in enumerate(zip(header, turn, strict=False)) if ours != theirs)
    return next(differs, min(len(header), len(turn)))
