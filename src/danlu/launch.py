"""Start the ranks of a run on this machine, watch them, and end them together."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from danlu import ranks
from danlu.errors import EXIT_INTERRUPTED
from danlu.messages import text

_LOOK = 0.05  # seconds between looks at the ranks
GRACE = 5.0  # seconds that the others may take to end once rank 0 has ended, or one has ended badly

Process = subprocess.Popen[bytes]


def launch(count: int, arguments: Sequence[str]) -> tuple[int, str]:
    """Run `danlu ARGUMENTS` as `count` ranks; the exit code of all, and what is to be said about it ("" = nothing).

    A rank that fails says why itself; one that is killed cannot. Whatever ends one rank ends all: within GRACE seconds
    by themselves, since none gets an answer any more, or they are killed.
    """
    port = ranks.free_port()
    started = [_start(rank, count, port, arguments) for rank in range(count)]
    with _forwarding(started):
        codes = _watch(started)
    killed = {rank: code for rank, code in codes.items() if code < 0}
    if killed:
        rank, code = next(iter(killed.items()))
        return EXIT_INTERRUPTED, text("launch.died", rank=rank, ranks=count, name=_name(-code))
    return next((code for code in codes.values() if code not in (0, EXIT_INTERRUPTED)), max(codes.values())), ""


def _start(rank: int, count: int, port: int, arguments: Sequence[str]) -> Process:
    """One rank: a session of its own, so that Ctrl-C reaches it through us alone."""
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, **ranks.environment(rank, count, port)}
    return subprocess.Popen(
        [sys.executable, "-m", "danlu", *arguments],
        env=environment | {ranks.LAUNCHER: str(os.getpid())},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _watch(started: Sequence[Process]) -> dict[int, int]:
    """Wait for all; the exit codes of those that ended by themselves."""
    limit = float("inf")
    while any(process.poll() is None for process in started):
        if time.monotonic() > limit:
            codes = {rank: process.poll() for rank, process in enumerate(started)}
            for process in started:
                process.kill()
                process.wait()
            return {rank: code for rank, code in codes.items() if code is not None}
        over = started[0].poll() is not None or any(process.poll() for process in started)
        if over and limit == float("inf"):
            limit = time.monotonic() + GRACE
        time.sleep(_LOOK)
    return {rank: process.returncode for rank, process in enumerate(started)}


@contextlib.contextmanager
def _forwarding(started: Sequence[Process]) -> Iterator[None]:
    """Hand SIGINT and SIGTERM on to the ranks: they save and end; a second one ends them at once."""

    def hand_on(number: int, frame: Any) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return str(number)
