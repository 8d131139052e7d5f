"""One answer under way: its tokens, its text, where it stands."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from danlu.modalities.text import Text
from danlu.nn.generate import Sampling
from danlu.nn.network import Network
from danlu.serve.reply import Reply


class Served(Protocol):
    """What the engine needs of a model; `chat`: it was taught the chat template; `usual`: how it speaks unless told."""

    @property
    def network(self) -> Network: ...

    @property
    def processor(self) -> Text: ...

    @property
    def context(self) -> int: ...

    @property
    def chat(self) -> bool: ...

    @property
    def usual(self) -> Sampling: ...

    @property
    def judges(self) -> bool: ...


@dataclass(frozen=True)
class Job:
    """One answer to generate; the prompt and `max_tokens` together fit into the context."""

    prompt: Sequence[int]
    sampling: Sampling


@dataclass(frozen=True)
class Piece:
    """Text as it comes. The last piece has `finish`: stop, length, or why there is none: cancelled, late, failed."""

    text: str
    tokens: int = 0  # generated so far
    finish: str | None = None


class Generation:
    """One job under way. The engine thread alone changes it; any thread may cancel it."""

    def __init__(self, job: Job, served: Served, deliver: Callable[[Piece], object]):
        self.job, self._deliver = job, deliver
        self.arrived = time.monotonic()
        self.slot: int | None = None
        self.cached = 0  # tokens whose keys and values are in the cache
        self.tokens = list(job.prompt)  # the prompt and what was generated
        self.random = torch.Generator().manual_seed(job.sampling.seed)
        self.cancelled = False
        self._reply = Reply(served.processor.stream(), job.sampling.stop)

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.job.prompt)

    @property
    def unread(self) -> int:
        """Tokens not in the cache, but for the last one: that is what the next is generated from."""
        return len(self.tokens) - 1 - self.cached

    def cancel(self) -> None:
        """Nobody wants the rest: the slot is free before the next step."""
        self.cancelled = True

    def accept(self, token: int, ends: Collection[int]) -> str | None:
        """Take the next token and deliver its text; returns how the answer ended, None while it goes on."""
        self.cached = len(self.tokens)
        self.tokens.append(token)
        text = "" if token in ends else self._reply.push(token)
        full = self.generated >= self.job.sampling.max_tokens
        if token in ends or full:
            text += self._reply.flush()
        stopped = token in ends or self._reply.stopped
        finish = "stop" if stopped else "length" if full else None
        if text or finish:
            self.deliver(text, finish)
        return finish

    def deliver(self, text: str, finish: str | None) -> None:
        try:
            self._deliver(Piece(text, self.generated, finish))
        except Exception:  # noqa: BLE001  (who listened is gone, or broken: nobody else's affair)
            self.cancelled = True
