"""What a run looks like in a terminal: one live line where there is one, a line per tenth where there is none."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from danlu.messages import text
from danlu.stopping import promptly


class Terminal:
    """The view of the command line: stages, progress, lines. Prints to standard error so that results can be piped."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, stream: Any = None):
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() and not quiet
        self.quiet, self.verbose = quiet, verbose and not quiet
        self.node = ""
        self._shown = 0.0
        self._tenth = -1
        self._open = False

    def stage(self, node: str, note: str) -> None:
        self._close()
        self.node, self._tenth = node, -1
        self.line(text("terminal.stage", node=node, note=note))

    def progress(self, done: float, total: float, note: str) -> None:
        share = done / total if total else 0.0
        if self.live:
            self._redraw(share, note)
        elif not self.quiet and int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            self._print(f"  {share:4.0%}  {note}")

    def _redraw(self, share: float, note: str) -> None:
        now = time.monotonic()
        if now - self._shown < 0.05 and share < 1:
            return
        self._shown = now
        full = int(share * 20)
        bar = "━" * full + "╌" * (20 - full)
        self.stream.write(f"\r\x1b[2K  {bar} {share:4.0%}  {_fitted(note)}")
        self.stream.flush()
        self._open = True

    def line(self, line: str) -> None:
        if not self.quiet:
            self._close()
            self._print(line)

    def detail(self, line: str) -> None:
        """A line for those who asked for more."""
        if self.verbose:
            self.line(f"  {line}")

    def _print(self, line: str) -> None:
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except (BrokenPipeError, ValueError):  # a closed pipe never stops a run
            self.quiet, self.live = True, False
            with contextlib.suppress(OSError, ValueError):  # what is buffered must not fail again at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def _close(self) -> None:
        """Leave the live line as it stands and go on below it."""
        if self._open:
            self.stream.write("\n")
            self._open = False

    def close(self) -> None:
        self._close()


@contextlib.contextmanager
def watching(*, quiet: bool, verbose: bool) -> Iterator[Terminal]:
    """The view of a verb that runs stages: the process is gone soon after it was asked to stop."""
    view = Terminal(quiet=quiet, verbose=verbose)
    with promptly(lambda: view.stream.write(text("cli.interrupted") + "\n")), contextlib.closing(view):
        yield view


def _fitted(note: str, room: int = 90) -> str:
    import shutil

    width = max(20, shutil.get_terminal_size().columns - 32)
    return note[: min(room + 40, width)]
