"""Asked to stop, by SIGTERM or Ctrl-C: gone within seconds, wherever the main thread is.

Python hears a signal between two of its own instructions. A backward pass, a vocabulary that is learned, a query of the
data engine take none for seconds or minutes. So a second thread listens at the socket that the interpreter's own
handler writes to, and ends the process by the clock: GRACE seconds after the first signal, at once after the second.
Nothing is half written by that (files.py holds it); what was not saved is done again by the next run.
"""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from danlu.errors import EXIT_INTERRUPTED

Handler = Callable[[int, FrameType | None], object]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 8.0  # seconds for what is under way; ten are promised, and a large process takes some to end
AT_ONCE = 0.5  # seconds in which a second signal may still end the process in order

_saving = threading.Lock()


@contextlib.contextmanager
def promptly(farewell: Callable[[], object]) -> Iterator[None]:
    """Inside, the process ends soon after a signal, with the exit code of what can be continued.

    `farewell` is called right before, from another thread. Outside the main thread signals cannot be heard.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        try:
            before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        except ValueError:
            yield
            return
        listening = threading.Thread(target=_listen, args=(ours, farewell), daemon=True)
        listening.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            theirs.shutdown(socket.SHUT_RDWR)  # at which the thread ends
            listening.join()


def _listen(heard: socket.socket, farewell: Callable[[], object]) -> None:
    """Wait for signals, then for the clock, then for a save that has begun."""
    deadlines: list[float] = []
    while True:
        left = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        try:
            number = heard.recv(1) if select.select([heard], [], [], left)[0] else None
        except (OSError, ValueError):  # closed: a second signal has ended the waiting for this thread
            return
        if number == b"":
            return
        if number:
            if number[0] in SIGNALS:
                deadlines.append(time.monotonic() + (AT_ONCE if deadlines else GRACE))
        elif len(deadlines) == 1 and _saving.locked():
            deadlines[0] = time.monotonic() + 0.1
        else:
            break
    try:
        farewell()
    finally:
        os._exit(EXIT_INTERRUPTED)


def _deaf() -> None:
    """A child made by fork has signals of its own: it must not report them to its parent's listener."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_deaf)


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """What is saved inside is saved to its end: a first signal waits for it, a second does not."""
    with _saving:
        yield


@contextlib.contextmanager
def told(handler: Handler) -> Iterator[None]:
    """Route SIGINT and SIGTERM to `handler` in the main thread; elsewhere they cannot be caught."""
    try:
        before = [signal.signal(number, handler) for number in SIGNALS]
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, old in zip(SIGNALS, before, strict=True):
            signal.signal(number, old)
