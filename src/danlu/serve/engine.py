"""The engine: ONE thread owns the model and answers many requests at once through one KV cache.

Each step of the thread: let go of what was cancelled, give free slots to what waits, read one piece of one new prompt,
and generate one token of every answer under way. So an answer never waits longer than one piece for another's prompt.
"""

import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from danlu.errors import UserError
from danlu.nn.generate import sample
from danlu.serve.generation import Generation, Job, Piece, Served
from danlu.serve.refusal import Refusal
from danlu.serve.slots import Slots
from danlu.serve.worker import Worker

# How a generation may end without an answer, and how that is said.
REFUSALS = {"failed": "internal_error", "late": "overloaded", "cancelled": "shutting_down"}
QUEUE_SECONDS = 30.0
PROMPT_PIECE = 256  # tokens of a new prompt that are read between two steps of the answers under way
_log = logging.getLogger("danlu.serve")


class Engine(Worker):
    """A worker whose requests are answers to generate; what is left when it ends is cancelled.

    `slots`: answers generated at the same time; `waiting`: how many more may wait. Raises UserError E606 for a model
    that says no text.
    """

    def __init__(self, served: Served, *, slots: int = 8, waiting: int = 64):
        if served.judges:
            raise UserError("E606")
        super().__init__("danlu-engine", waiting)
        self.served = served
        self._slots = Slots(served.network, slots, served.context)
        self._ends, self._never = _control(served)
        self._waiting: list[Generation] = []
        self._running: list[Generation] = []

    def exposition(self) -> str:
        """The metrics, in Prometheus's text format."""
        running, waiting = len(self._running), len(self._waiting)
        return self.counters.exposition(
            generations_running=running, generations_waiting=waiting, slots=self._slots.count
        )

    def submit(self, jobs: Sequence[Job], sink: Callable[[int, Piece], object]) -> list[Generation]:
        """Accept all jobs or none. `sink(index, piece)` is called in the engine thread and must not block.

        Raises:
            Refusal: the queue is full, or the server is shutting down.
        """
        made = [Generation(job, self.served, _at(index, sink)) for index, job in enumerate(jobs)]
        with self._wake:
            self._admit(len(self._waiting) + len(made), self._most_waiting + self._slots.free)
            self._waiting += made
            self._wake.notify()
        return made

    def stream(self, job: Job) -> Iterator[Piece]:
        """One job's pieces, for a caller in this process; leaving the loop cancels it.

        Raises:
            Refusal: as `submit`, or there is no answer.
        """
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        (generation,) = self.submit([job], lambda _, piece: pieces.put(piece))
        try:
            finish = None
            while finish is None:
                piece = pieces.get()
                finish = piece.finish
                if finish in REFUSALS:
                    raise Refusal(REFUSALS[finish])
                yield piece
        finally:
            generation.cancel()

    # --- the engine thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        with torch.no_grad():
            while self._has_work():
                self._step()
        for generation in self._all():
            self._end(generation, "cancelled")

    def _has_work(self) -> bool:
        """Sleep until there is something to do; False when the engine stops."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._waiting or self._running)
            return not self._stopping

    def _step(self) -> None:
        self._let_go()
        self._give_slots()
        self._guarded(self._read, [each for each in self._running if each.unread][:1])
        self._guarded(self._generate, [each for each in self._running if not each.unread])

    def _let_go(self) -> None:
        now = time.monotonic()
        for generation in self._all():
            if generation.cancelled:
                self._end(generation, "cancelled")
            elif generation.slot is None and now - generation.arrived > QUEUE_SECONDS:
                self._end(generation, "late")

    def _give_slots(self) -> None:
        with self._wake:
            while self._waiting and self._slots.free:
                generation = self._waiting.pop(0)
                generation.slot = self._slots.take()
                self._running.append(generation)
                self.counters.prompt_tokens(len(generation.job.prompt))

    def _read(self, rows: Sequence[Generation]) -> None:
        """The next piece of one prompt into the cache."""
        for row in rows:
            piece = row.tokens[row.cached : -1][:PROMPT_PIECE]
            self._slots.read(_slot(row), piece, start=row.cached)
            row.cached += len(piece)

    def _generate(self, rows: Sequence[Generation]) -> None:
        """One token of every row."""
        rows = sorted(rows, key=_slot)  # neighbours in the cache are read without a copy
        last = [row.tokens[-1] for row in rows]
        logits = self._slots.step([_slot(row) for row in rows], last, [row.cached for row in rows])
        logits[:, self._never] = -torch.inf
        logits[:, self.served.processor.vocab_size :] = -torch.inf  # a table may be wider than the vocabulary
        samplings, histories = [row.job.sampling for row in rows], [row.tokens for row in rows]
        chosen = sample(logits, samplings, histories, [row.random for row in rows], self._ends)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            self._took(row, token)

    def _took(self, row: Generation, token: int) -> None:
        if row.generated == 0:
            self.counters.first_token(time.monotonic() - row.arrived)
        self.counters.generated_token()
        if finish := row.accept(token, self._ends):
            self._release(row, finish)

    def _guarded(self, work: Callable[[Sequence[Generation]], None], rows: Sequence[Generation]) -> None:
        """Do `work` for all rows together; if that fails, for each alone, so that only the guilty end."""
        rows = [row for row in rows if row.slot is not None]
        try:
            if rows:
                work(rows)
        except Exception:  # noqa: BLE001  (whatever a request can cause ends that request alone)
            _log.exception("%s failed for %d generation(s)", work.__name__, len(rows))
            if len(rows) == 1:
                self._end(rows[0], "failed")
            else:
                for row in rows:
                    self._guarded(work, [row])

    def _end(self, generation: Generation, how: str) -> None:
        """End without an answer."""
        self._release(generation, how)
        generation.deliver("", how)

    def _release(self, generation: Generation, how: str) -> None:
        """Forget the generation: its slot, or its place in the queue, is free."""
        with self._wake:
            (self._waiting if generation.slot is None else self._running).remove(generation)
            if generation.slot is not None:
                self._slots.release(generation.slot)
                generation.slot = None
        self.counters.ended(how)

    def _all(self) -> list[Generation]:
        with self._wake:
            return [*self._running, *self._waiting]


def _at(index: int, sink: Callable[[int, Piece], object]) -> Callable[[Piece], object]:
    return lambda piece: sink(index, piece)


def _slot(row: Generation) -> int:
    assert row.slot is not None
    return row.slot


def _control(served: Served) -> tuple[frozenset[int], list[int]]:
    """The tokens that end an answer, and those that may never be chosen: every other control token."""
    text = served.processor
    ends = frozenset({text.end_id, text.end_turn} if served.chat else {text.end_id})
    return ends, sorted(set(text.control.values()) - ends)
