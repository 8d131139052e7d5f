"""Streamed text with stop strings: what comes out piece by piece is the whole text cut at the first stop string."""

import codecs

from hypothesis import given
from hypothesis import strategies as st

from danlu.serve.reply import Reply


class Bytes:
    """A detokenizer whose tokens are single bytes: every character beyond ASCII is split over tokens."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes([token]))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


def spoken(text: str, stops: list[str]) -> tuple[list[str], bool]:
    reply, pieces = Reply(Bytes(), stops), []
    for token in text.encode():
        pieces.append(reply.push(token))
        if reply.stopped:
            return pieces, True
    return [*pieces, reply.flush()], reply.stopped


def cut(text: str, stops: list[str]) -> str:
    """The oracle. The stop string that is complete first decides, as it does when tokens arrive one by one."""
    for end in range(len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)]
    return text


@given(text=st.text("ab丹\n", max_size=30), stops=st.lists(st.text("ab丹\n", min_size=1, max_size=4), max_size=3))
def test_the_stream_is_the_text_up_to_the_first_stop_string(text: str, stops: list[str]) -> None:
    pieces, stopped = spoken(text, stops)
    assert "".join(pieces) == cut(text, stops)
    assert stopped == any(stop in text for stop in stops)


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    assert spoken("one END", ["END"])[0] == ["o", "n", "e", " ", "", "", ""]
    assert spoken("one EN.", ["END"])[0] == ["o", "n", "e", " ", "", "", "EN.", ""]


def test_half_a_character_at_the_end_becomes_a_replacement() -> None:
    reply = Reply(Bytes())
    assert [reply.push(byte) for byte in "丹".encode()[:2]] == ["", ""]
    assert reply.flush() == "�"
