"""Talk with a model in the terminal, the engine in this process. A base model never saw dialogs: it continues text."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from danlu.messages import text
from danlu.modalities.chat import encode_chat
from danlu.nn.generate import Sampling
from danlu.serve.engine import Engine
from danlu.serve.generation import Job, Served
from danlu.serve.jobs import continuation
from danlu.serve.refusal import Refusal

LEAVE, AFRESH = "/bye", "/new"


def converse(engine: Engine, sampling: Sampling, *, ask: Callable[[], str], write: Callable[[str], object]) -> None:
    """Ask and answer until /bye, the end of the input, or Ctrl-C at the prompt; Ctrl-C in an answer ends just that."""
    write(text("chat.hello" if engine.served.chat else "chat.base_model") + "\n")
    talk = Conversation(engine, sampling)
    while (line := _asked(ask)) != LEAVE:
        if line == AFRESH:
            talk = Conversation(engine, sampling)
        elif line:
            _answer(talk, line, write)


def _asked(ask: Callable[[], str]) -> str:
    try:
        return ask().strip()
    except (EOFError, KeyboardInterrupt):
        return LEAVE


def _answer(talk: "Conversation", line: str, write: Callable[[str], object]) -> None:
    try:
        for piece in talk.say(line):
            write(visible(piece))
    except KeyboardInterrupt:
        pass
    except PromptTooLong as error:
        write(text("chat.too_long", tokens=error.tokens, context=error.context))
    except Refusal as error:
        write(error.message)
    write("\n")


def visible(piece: str) -> str:
    """The text without control characters: a model's answer cannot steer the terminal."""
    return "".join(c for c in piece if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160))


class PromptTooLong(Exception):
    """The prompt alone fills the model's context."""

    def __init__(self, tokens: int, context: int):
        super().__init__(tokens, context)
        self.tokens, self.context = tokens, context


class Conversation:
    """What was said so far; the oldest exchanges are forgotten when the context is full."""

    def __init__(self, engine: Engine, sampling: Sampling):
        self._engine, self._sampling = engine, sampling
        self._messages: list[dict[str, str]] = []

    def say(self, line: str) -> Iterator[str]:
        """The model's answer to `line`, piece by piece; what came of it is remembered, also when it was stopped.

        Raises:
            PromptTooLong: `line` does not fit, even alone.
        """
        messages = [*self._messages, {"role": "user", "content": line}]
        messages, prompt = self._fitted(messages) if self._served.chat else ([], continuation(self._served, line))
        answer = ""
        job = Job(prompt, self._within(prompt))
        try:
            for piece in self._engine.stream(job):
                answer += piece.text
                yield piece.text
        finally:
            self._messages = [*messages, {"role": "assistant", "content": answer}]

    def _fitted(self, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[int]]:
        """The newest messages that leave room for an answer, and their tokens."""
        prompt = _encoded(self._served, messages)
        while len(messages) > 1 and len(prompt) + self._wanted > self._served.context:
            messages = messages[2:]
            prompt = _encoded(self._served, messages)
        return messages, prompt

    @property
    def _served(self) -> Served:
        return self._engine.served

    @property
    def _wanted(self) -> int:
        """Room that is kept for an answer: what was asked for, but never more than half the context."""
        return min(self._sampling.max_tokens, self._served.context // 2)

    def _within(self, prompt: list[int]) -> Sampling:
        """The sampling of this turn: no longer than the context has room, and not the same draws as the turn before."""
        room = self._served.context - len(prompt)
        if room < 1:
            raise PromptTooLong(len(prompt), self._served.context)
        turn = self._sampling.seed + len(self._messages)
        return replace(self._sampling, max_tokens=min(self._sampling.max_tokens, room), seed=turn)


def _encoded(served: Served, messages: list[dict[str, str]]) -> list[int]:
    return encode_chat(served.processor, messages, reply=True)[0]
