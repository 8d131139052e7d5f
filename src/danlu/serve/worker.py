"""A worker: ONE thread that owns a model; handlers hand it requests, and it ends in order."""

import threading
from abc import ABC, abstractmethod
from typing import Self

from danlu.serve.counters import Counters
from danlu.serve.refusal import Refusal


class Worker(ABC):
    """Use as a context manager: the thread runs inside it. `waiting`: how many requests may wait."""

    def __init__(self, name: str, waiting: int):
        self.counters = Counters()
        self._most_waiting = waiting
        self._wake = threading.Condition()
        self._draining = self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take nothing new, tell the thread to stop, and wait for it."""
        self.drain()
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    @property
    def ready(self) -> bool:
        return self._thread.is_alive() and not self._draining

    def drain(self) -> None:
        """Take no new requests; those accepted go on. Safe in a signal handler: it takes no lock."""
        self._draining = True

    def _admit(self, waiting: int, room: int) -> None:
        """Called with `_wake` held, before a request is put among those that wait, `waiting` with it.

        Raises:
            Refusal: there is no more room, or the server is shutting down.
        """
        if not self.ready:
            raise Refusal("shutting_down")
        if waiting > room:
            raise Refusal("overloaded")

    @abstractmethod
    def exposition(self) -> str:
        """The metrics, in Prometheus's text format."""

    @abstractmethod
    def _run(self) -> None:
        """The thread: work until `_stopping`."""
