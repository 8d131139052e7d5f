"""The text of one answer while its tokens arrive: always valid text, cut before the first stop string."""

from collections.abc import Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Tokens in, only complete and valid text out."""

    def push(self, token: int) -> str: ...

    def flush(self) -> str: ...


class Reply:
    """Text that may be the beginning of a stop string is held back, so that what is out never has to be taken back."""

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str] = ()):
        self._detokenizer, self._stops = detokenizer, tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that `token` makes certain; sets `stopped` when it completes a stop string."""
        return self._release(self._detokenizer.push(token), last=False)

    def flush(self) -> str:
        """What is left when no token follows."""
        return "" if self.stopped else self._release(self._detokenizer.flush(), last=True)

    def _release(self, text: str, *, last: bool) -> str:
        text, self._held = self._held + text, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = 0 if last else self._possible(text)
        text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return text

    def _possible(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        ends = range(min(longest, len(text)), 0, -1)
        return next((n for n in ends if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
