"""The small client against a real server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from danlu.errors import UserError
from danlu.serve.client import Client
from tests.serve.tiny import Tiny


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


@contextmanager
def says(answer: bytes) -> Iterator[str]:
    """A server that gives one fixed answer and hangs up."""

    def once() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=once)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_an_answer_that_breaks_off_is_an_error_after_what_came() -> None:
    event = b'data: {"choices": [{"text": "so far"}]}\n\n'
    with says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(event), event)) as url:
        pieces = Client(url).complete("m", "x")
        assert next(pieces) == "so far"
        with pytest.raises(UserError) as caught:
            next(pieces)
    assert caught.value.code == "E604"


def test_another_kind_of_server_is_a_clear_error() -> None:
    page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>"
    with says(page) as url, pytest.raises(UserError, match="404 Not Found"):
        Client(url).models()
