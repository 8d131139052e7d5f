"""The judge: ONE thread owns a model that answers a row at once (its class); rows that wait are read together."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from danlu.errors import UserError
from danlu.serve.refusal import Refusal
from danlu.serve.worker import Worker

_TOGETHER = 64  # rows of one forward pass, at most
_log = logging.getLogger("danlu.serve")
Row = dict[str, Any]


class Judged(Protocol):
    """What the judge needs of a model."""

    @property
    def context(self) -> int: ...

    @property
    def judges(self) -> bool: ...

    @property
    def asks(self) -> Mapping[str, bool]: ...

    def judge(self, rows: Sequence[Row]) -> list[Row]: ...


class Judge(Worker):
    """A worker whose requests are rows; those that wait are answered before it ends."""

    def __init__(self, served: Judged, *, waiting: int = 64):
        super().__init__("danlu-judge", waiting)
        self.served = served
        self._waiting: list[tuple[Sequence[Row], Future[list[Row]]]] = []

    def exposition(self) -> str:
        """The metrics, in Prometheus's text format."""
        return self.counters.exposition(generations_waiting=len(self._waiting))

    def submit(self, rows: Sequence[Row]) -> "Future[list[Row]]":
        """What the model says of each row, when it has.

        Raises:
            Refusal: the queue is full, or the server is shutting down.
        """
        answer: Future[list[Row]] = Future()
        with self._wake:
            self._admit(len(self._waiting) + 1, self._most_waiting)
            self._waiting.append((rows, answer))
            self._wake.notify()
        return answer

    # --- the judge's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while taken := self._taken():
            rows = [row for each, _ in taken for row in each]
            try:
                said = self.served.judge(rows)
            except UserError as error:
                self._refuse(taken, error)
                continue
            except Exception:  # noqa: BLE001  (whatever a request can cause ends that request alone)
                _log.exception("rows could not be judged")
                for _, answer in taken:
                    answer.set_exception(Refusal("internal_error"))
                continue
            for each, answer in taken:
                answer.set_result(said[: len(each)])
                del said[: len(each)]

    def _refuse(self, taken: Sequence[tuple[Sequence[Row], "Future[list[Row]]"]], error: UserError) -> None:
        """Some row cannot be read: where several requests were read together, each is tried alone."""
        if len(taken) == 1:
            taken[0][1].set_exception(Refusal("invalid_value", param="body", reason=error.what))
            return
        for rows, answer in taken:
            try:
                answer.set_result(self.served.judge(rows))
            except UserError as own:
                self._refuse([(rows, answer)], own)

    def _taken(self) -> list[tuple[Sequence[Row], "Future[list[Row]]"]]:
        """Sleep until something waits; the requests to read together, none when the server stops."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._waiting)
            count = total = 0
            for rows, _ in self._waiting:
                total += len(rows)
                if count and total > _TOGETHER:
                    break
                count += 1
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            return taken
