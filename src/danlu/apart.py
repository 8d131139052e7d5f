"""A stage in a process of its own: what it alone needs is gone with it.

The libraries that read, clean and encode rows stay in memory once they are loaded (110 MB), where a training has no use
for them. What the stage says, returns or raises comes back through a pipe; what it writes lies on the disk anyway.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from danlu import ranks
from danlu.errors import UserError

if TYPE_CHECKING:
    from danlu.graph import Context

_OFTEN = 0.05  # seconds between two words of progress
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def supported() -> bool:
    """Whether stages run apart in a `danlu run` like this one: on Linux, of one rank."""
    return sys.platform == "linux" and ranks.count() == 1


def possible() -> bool:
    """Whether this process can be copied: not once torch may have computed, whose threads a copy would wait for."""
    return supported() and "torch" not in sys.modules


def run(stage: Callable[["Context"], None], context: "Context", meanwhile: Callable[[], object]) -> float:
    """Call `stage` in a copy of this process, and `meanwhile` in this one; the seconds that the stage took.

    Raises:
        UserError: E408, the process was ended from outside. Else what the stage raises.
    """
    fork = multiprocessing.get_context("fork")
    heard, said = fork.Pipe(duplex=False)
    worker = fork.Process(target=_work, args=(stage, context, said, os.getpid()), daemon=True)
    with heard:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the one other thread listens to a socket alone
                worker.start()
            said.close()
            meanwhile()
            return _listen(heard, context, worker)
        finally:
            if worker.pid:
                worker.kill()
                worker.join()


def _listen(heard: Connection, context: "Context", worker: Any) -> float:
    """Pass on what the stage says, until it has ended."""
    while True:
        try:
            word, *values = heard.recv()
        except EOFError:
            worker.join()
            raise UserError("E408", signal=_named(worker.exitcode)) from None
        if word == "ended":
            context.output_hash, context.facts, seconds = values
            return float(seconds)
        if word in ("raised", "failed"):
            raise values[0] if word == "raised" else _again(*values)
        getattr(context.view, word)(*values)


def _again(kind: str, said: str, where: str) -> Exception:
    """A mistake of ours under its own name, with where it was made."""
    error = type(kind, (Exception,), {})(said)
    error.add_note(where)
    return error


def _named(code: int) -> str:
    """An exit code as the signal that it stands for."""
    return signal.Signals(-code).name if code < 0 else str(code)


# --- in the process of the stage ---------------------------------------------------------------------


class _Teller:
    """A view that sends what it is told through a pipe."""

    def __init__(self, said: Connection) -> None:
        self.said, self.told = said, 0.0

    def stage(self, node: str, note: str) -> None:
        self.said.send(("stage", node, note))

    def progress(self, done: float, total: float, note: str) -> None:
        now = time.monotonic()
        if done >= total or now - self.told >= _OFTEN:
            self.told = now
            self.said.send(("progress", done, total, note))

    def line(self, line: str) -> None:
        self.said.send(("line", line))


def _work(stage: Callable[["Context"], None], context: "Context", said: Connection, parent: int) -> None:
    """Run the stage; the parent is asked to end, not we, and without it we end too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with(parent)
    context.view, begun = _Teller(said), time.monotonic()
    try:
        stage(context)
        said.send(("ended", context.output_hash, context.facts, time.monotonic() - begun))
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent decides
        _tell(said, error)


def _tell(said: Connection, error: BaseException) -> None:
    """Send an error: one that is for users as it is, a mistake of ours by what it says of itself."""
    where = traceback.format_exc()
    if isinstance(error, (UserError, OSError, MemoryError)):
        error.add_note(where)
        with contextlib.suppress(Exception):  # what it carries cannot be sent
            said.send(("raised", error))
            return
    said.send(("failed", type(error).__name__, str(error), where))


def _end_with(parent: int) -> None:
    """Be killed when the parent is gone, however it went."""
    import ctypes

    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
