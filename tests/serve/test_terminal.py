"""The terminal's conversation: what it says, remembers, forgets, and never lets through."""

from collections.abc import Iterator

import pytest

from danlu.modalities.chat import encode_chat
from danlu.nn.generate import Sampling
from danlu.serve.chat import Conversation, PromptTooLong, converse, visible
from danlu.serve.engine import Engine
from danlu.serve.generation import Job, Piece
from danlu.serve.refusal import Refusal
from tests.serve.tiny import Tiny

GREEDY = Sampling(temperature=0, max_tokens=8)


class Recorder(Engine):
    """An engine that keeps the prompts it was given."""

    prompts: list[list[int]]

    def stream(self, job: Job) -> Iterator[Piece]:
        self.prompts = [*getattr(self, "prompts", []), list(job.prompt)]
        yield from super().stream(job)


def conversation(engine: Engine, *lines: str) -> str:
    """What the terminal shows when these lines are typed."""
    typed, shown = iter(lines), list[str]()

    def ask() -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    converse(engine, GREEDY, ask=ask, write=shown.append)
    return "".join(shown)


def test_the_next_turn_knows_the_last_and_new_forgets(served: Tiny) -> None:
    with Recorder(served) as engine:
        conversation(engine, "hi", "more", "", "/new", "hi", "/bye", "never")
    first, second, fresh = engine.prompts
    assert second[: len(first)] == first
    assert second[-len(fresh) :] != fresh
    assert fresh == first


def test_the_oldest_turns_make_room(served: Tiny) -> None:
    with Recorder(served) as engine:
        talk = Conversation(engine, GREEDY)
        for index in range(8):
            list(talk.say(f"turn {index}"))
    newest = [{"role": "user", "content": "turn 7"}]
    ids, _ = encode_chat(served.processor, newest, reply=True)
    assert engine.prompts[-1][-len(ids) :] == ids
    assert all(len(prompt) + GREEDY.max_tokens <= served.context for prompt in engine.prompts)
    assert served.processor.start_turn == engine.prompts[-1][0]


def test_too_long_a_line_is_said_and_the_talk_goes_on(served: Tiny, engine: Engine) -> None:
    shown = conversation(engine, "word " * 300, "hi")
    assert f"context of {served.context}" in shown
    with pytest.raises(PromptTooLong):
        list(Conversation(engine, GREEDY).say("word " * 300))


def test_a_base_model_continues_and_says_so(base: Tiny) -> None:
    with Engine(base) as engine:
        shown = conversation(engine, "the quick")
    ids = [base.processor.end_id, *base.processor.encode("the quick")]
    assert "base model" in shown
    assert visible(base.processor.decode(base.greedy(ids, 8))) in shown


def test_interrupting_an_answer_keeps_the_conversation(engine: Engine) -> None:
    shown: list[str] = []

    def write(piece: str) -> None:
        shown.append(piece)
        if len(shown) == 2:
            raise KeyboardInterrupt

    lines = iter(["hi", "again", "/bye"])
    converse(engine, GREEDY, ask=lambda: next(lines), write=write)
    assert len(shown) > 3


def test_an_answer_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[2J\x07b\r\n\tc\x9b1m丹\x7f") == "a[2Jb\n\tc1m丹"


def test_a_refusal_is_said_and_the_talk_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, refusals = Engine.stream, [Refusal("overloaded")]

    def once(self: Engine, job: Job) -> Iterator[Piece]:
        if refusals:
            raise refusals.pop()
        return stream(self, job)

    monkeypatch.setattr(Engine, "stream", once)
    refusal, answer = Refusal("overloaded").message, conversation(engine, "hi", "hi")
    assert refusal in answer
    assert len(answer.partition(refusal)[2].strip()) > 0
