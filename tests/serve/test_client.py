"""The small client against a real server."""

import pytest
from conftest import Tiny

from danlu.errors import UserError
from danlu.serve.client import Client


def test_streams_what_the_model_says(url: str, served: Tiny) -> None:
    ids = [served.processor.end_id, *served.processor.encode("def add(")]
    pieces = list(Client(url).complete("tiny", "def add(", max_tokens=20, temperature=0))
    assert len(pieces) > 3
    assert "".join(pieces) == served.processor.decode(served.greedy(ids, 20))


def test_chats_and_lists(url: str) -> None:
    client = Client(url)
    talk = [{"role": "user", "content": "hi"}]
    once, again = ("".join(client.chat("tiny", talk, max_tokens=9, temperature=0)) for _ in range(2))
    assert once == again
    assert client.models() == ["tiny"]


def test_a_refusal_is_a_clear_error(url: str) -> None:
    with pytest.raises(UserError, match="temperature") as caught:
        list(Client(url).complete("tiny", "x", temperature=9))
    assert caught.value.code == "E605"


def test_no_server_is_a_clear_error() -> None:
    with pytest.raises(UserError) as caught:
        Client("http://127.0.0.1:1").models()
    assert (caught.value.code, caught.value.exit) == ("E604", 2)
