"""What a call says while it works: few lines, and a bar only where it can be redrawn."""

import contextlib
import sys
from collections.abc import Iterator

from danlu.terminal import Terminal


class Notes(Terminal):
    """No line for a stage, nor for a tenth of it: a notebook keeps all that is printed."""

    def stage(self, node: str, note: str) -> None:
        self.node = node

    def progress(self, done: float, total: float, note: str) -> None:
        if self.live:
            super().progress(done, total, note)


@contextlib.contextmanager
def notes(*, quiet: bool) -> Iterator[Notes]:
    """The view of a call; what it drew is left in order. A notebook shows errors in red: there it is no error."""
    stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    with contextlib.closing(Notes(quiet=quiet, stream=stream)) as view:
        yield view
