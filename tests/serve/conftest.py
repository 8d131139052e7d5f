"""The tiny model, the engine and the server that the tests talk to."""

from collections.abc import Iterator

import pytest

from danlu.config import Serve
from danlu.serve.engine import Engine
from danlu.serve.run import background
from tests.serve.tiny import Tiny, tiny


@pytest.fixture(scope="session")
def served() -> Tiny:
    return tiny()


@pytest.fixture(scope="session")
def base() -> Tiny:
    """A model that never saw dialogs."""
    return tiny(chat=False)


@pytest.fixture
def engine(served: Tiny) -> Iterator[Engine]:
    with Engine(served, slots=3, waiting=500) as running:
        yield running


@pytest.fixture(scope="module")
def url(served: Tiny) -> Iterator[str]:
    """A real server on a free port of this machine."""
    with background(served, "tiny", Serve(port=0, slots=3)) as address:
        yield address
