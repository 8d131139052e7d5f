"""Starting and stopping a server: the port first, an orderly end."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from danlu.config import Serve
from danlu.errors import UserError
from danlu.model import Model
from danlu.models import qwen3
from danlu.nn.generate import Sampling
from danlu.serve.client import Client
from danlu.serve.run import address, listen, serve
from tests.serve.tiny import fitted

SERVE = """
import sys
from danlu.config import Serve
from danlu.model import Model
from danlu.serve.run import serve
serve(lambda: Model.from_pretrained(sys.argv[1]), "mine", Serve(port=0, slots=2), lambda url: print(url, flush=True))
"""


def never() -> None:
    raise AssertionError("the model was loaded")


def test_a_port_in_use_is_found_before_the_model_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=str(port)) as caught:
            serve(never, "tiny", Serve(port=port), print)
    assert (caught.value.code, caught.value.exit) == ("E601", 2)


def test_a_port_is_taken_from_the_moment_it_listens() -> None:
    with listen(Serve(port=0)) as first, pytest.raises(UserError) as caught:
        listen(Serve(port=first.getsockname()[1]))
    assert caught.value.code == "E601"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_beyond_this_machine_a_key_is_needed(host: str) -> None:
    with pytest.raises(UserError) as caught:
        serve(never, "tiny", Serve(host=host, port=0), print)
    assert caught.value.code == "E602"


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        serve(never, "tiny", Serve(host="192.0.2.1", port=0, api_key="k"), print)
    assert caught.value.code == "E603"


def test_the_address_names_the_port_that_was_found() -> None:
    with listen(Serve(port=0)) as listening:
        assert address(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_signal_lets_the_answers_under_way_finish(tmp_path: Path) -> None:
    model = Model.from_architecture(qwen3.preset(320, 512, 1), fitted(), "language_modeling")
    model.save_pretrained(tmp_path / "mine")
    wanted = model.eval().predict("the quick", Sampling(temperature=0, max_tokens=400))
    command = [sys.executable, "-c", SERVE, str(tmp_path / "mine")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            url = server.stdout.readline().strip()
            pieces = Client(url, timeout=30).complete("mine", "the quick", max_tokens=400, temperature=0)
            said = next(pieces)
            server.send_signal(signal.SIGTERM)
            said += "".join(pieces)
            assert server.wait(20) == 0
        finally:
            server.kill()
        assert server.stderr.read() == ""
    assert said == wanted
    with pytest.raises(UserError):
        Client(url).models()
