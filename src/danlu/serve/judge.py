"""The judge: ONE thread owns a model that answers a row at once (its class); rows that wait are read together."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from danlu.errors import UserError
from danlu.serve.refusal import Refusal
from danlu.serve.worker import Worker

_TOGETHER = 64  # rows of one forward pass, at most
_log = logging.getLogger("danlu.serve")
Row = dict[str, Any]


@dataclass(frozen=True)
class _Asked:
    """Rows that wait for what is done with them; those that wait for the same are done together."""

    work: Callable[[Sequence[Row]], list[Row]]
    rows: Sequence[Row]
    answer: "Future[list[Row]]" = field(default_factory=Future)


class Judged(Protocol):
    """What the judge needs of a model."""

    @property
    def context(self) -> int: ...

    @property
    def judges(self) -> bool: ...

    @property
    def embeds(self) -> bool: ...

    @property
    def makes(self) -> bool: ...

    @property
    def asks(self) -> Mapping[str, bool]: ...

    def judge(self, rows: Sequence[Row]) -> list[Row]: ...


class Judge(Worker):
    """A worker whose requests are rows; those that wait are answered before it ends."""

    def __init__(self, served: Judged, *, waiting: int = 64):
        super().__init__("danlu-judge", waiting)
        self.served = served
        self._waiting: list[_Asked] = []

    def exposition(self) -> str:
        """The metrics, in Prometheus's text format."""
        return self.counters.exposition(generations_waiting=len(self._waiting))

    def submit(self, rows: Sequence[Row]) -> "Future[list[Row]]":
        """What the model says of each row, when it has.

        Raises:
            Refusal: the queue is full, or the server is shutting down.
        """
        return self._put(_Asked(self.served.judge, rows))

    def explain(self, row: Row, target: str) -> "Future[list[Row]]":
        """Why the model says what it says of a row, or what speaks for another answer; a list of one.

        Raises:
            Refusal: as of `submit`.
        """
        from danlu.explain import explain

        served: Any = self.served
        return self._put(_Asked(lambda rows: [explain(served, rows[0], target).table()], [row]))

    def _put(self, asked: _Asked) -> "Future[list[Row]]":
        with self._wake:
            self._admit(len(self._waiting) + 1, self._most_waiting)
            self._waiting.append(asked)
            self._wake.notify()
        return asked.answer

    # --- the judge's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while taken := self._taken():
            rows = [row for each in taken for row in each.rows]
            try:
                said = taken[0].work(rows)
            except UserError as error:
                self._refuse(taken, error)
                continue
            except Exception:  # noqa: BLE001  (whatever a request can cause ends that request alone)
                _log.exception("rows could not be judged")
                for each in taken:
                    each.answer.set_exception(Refusal("internal_error"))
                continue
            for each in taken:
                each.answer.set_result(said[: len(each.rows)])
                del said[: len(each.rows)]

    def _refuse(self, taken: Sequence[_Asked], error: UserError) -> None:
        """Some row cannot be read: where several requests were read together, each is tried alone."""
        if len(taken) == 1:
            taken[0].answer.set_exception(Refusal("invalid_value", param="body", reason=error.what))
            return
        for each in taken:
            try:
                each.answer.set_result(each.work(each.rows))
            except UserError as own:
                self._refuse([each], own)

    def _taken(self) -> list[_Asked]:
        """Sleep until something waits; the requests to read together, none when the server stops."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._waiting)
            count = total = 0
            for each in self._waiting:
                total += len(each.rows)
                if count and (total > _TOGETHER or each.work != self._waiting[0].work):
                    break
                count += 1
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            return taken
