"""The engine: together as alone, nothing leaks, one failure is one failure."""

import queue
import threading
import time
from collections.abc import Iterable

import pytest
import torch

from danlu.nn.generate import Sampling
from danlu.serve import engine as engine_module
from danlu.serve.engine import Engine
from danlu.serve.generation import Job, Piece
from danlu.serve.refusal import Refusal
from tests.serve.tiny import Tiny

PROMPTS = ["def add(", "炼丹", "the quick brown fox jumps over", "", "a", "return a + b\n" * 2, "lazy dog", "一炉又"]


def greedy(count: int, stop: tuple[str, ...] = ()) -> Sampling:
    return Sampling(temperature=0, max_tokens=count, stop=stop)


def prompt(served: Tiny, text: str) -> list[int]:
    return [served.processor.end_id, *served.processor.encode(text)]


def heard(engine: Engine, jobs: list[Job]) -> list[list[Piece]]:
    """Everything the engine says to each of the jobs, submitted together."""
    pieces: queue.SimpleQueue[tuple[int, Piece]] = queue.SimpleQueue()
    engine.submit(jobs, lambda index, piece: pieces.put((index, piece)))
    said: list[list[Piece]] = [[] for _ in jobs]
    while not all(each and each[-1].finish for each in said):
        index, piece = pieces.get(timeout=20)
        said[index].append(piece)
    return said


def texts(said: Iterable[list[Piece]]) -> list[str]:
    return ["".join(piece.text for piece in each) for each in said]


def settled(engine: Engine) -> str:
    """The metrics once nothing runs or waits."""
    for _ in range(1000):
        if "running 0\n" in engine.exposition() and "waiting 0\n" in engine.exposition():
            break
        time.sleep(0.01)
    return engine.exposition()


def test_batched_answers_equal_whole_forward_passes_alone(engine: Engine, served: Tiny) -> None:
    jobs = [Job(prompt(served, text), greedy(5 + 3 * index)) for index, text in enumerate(PROMPTS)]
    expected = [served.processor.decode(served.greedy(job.prompt, job.sampling.max_tokens)) for job in jobs]
    assert len(set(expected)) > 4, "the model is too dull to tell rows apart"
    assert texts(heard(engine, jobs)) == expected
    assert f"danlu_prompt_tokens_total {sum(len(job.prompt) for job in jobs)}\n" in engine.exposition()


def test_a_prompt_longer_than_a_piece_is_read_in_pieces(
    engine: Engine, served: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "PROMPT_PIECE", 7)
    jobs = [Job(prompt(served, text * 3)[:50], greedy(9)) for text in PROMPTS]
    assert texts(heard(engine, jobs)) == [served.processor.decode(served.greedy(job.prompt, 9)) for job in jobs]


def test_an_answer_fills_the_context_to_its_last_token(engine: Engine, served: Tiny) -> None:
    ids = prompt(served, "the quick")
    room = served.context - len(ids)
    (said,) = heard(engine, [Job(ids, greedy(room))])
    assert texts([said]) == [served.processor.decode(served.greedy(ids, room))]
    assert said[-1].finish == "stop" or said[-1].tokens == room


def test_a_seed_repeats_its_draws_whatever_runs_beside_it(engine: Engine, served: Tiny) -> None:
    job = Job(prompt(served, "the"), Sampling(temperature=1.5, seed=7, max_tokens=20))
    other = Job(prompt(served, "the"), Sampling(temperature=1.5, seed=8, max_tokens=20))
    alone = texts(heard(engine, [job]))[0]
    assert texts(heard(engine, [other, job, other, job]))[1::2] == [alone, alone]
    assert texts(heard(engine, [other]))[0] != alone


def test_stop_strings_end_the_text_before_them(engine: Engine, served: Tiny) -> None:
    ids = prompt(served, "the quick")
    whole = served.processor.decode(served.greedy(ids, 30))
    stop = whole[5:9]
    assert len(served.processor.encode(stop)) > 1, "the stop string should cross tokens"
    (said,) = heard(engine, [Job(ids, greedy(30, (stop,)))])
    assert texts([said]) == [whole[: whole.index(stop)]]
    assert said[-1].finish == "stop"


def test_aborts_leak_nothing_and_disturb_nobody(engine: Engine, served: Tiny) -> None:
    steady = Job(prompt(served, "炼丹"), greedy(60))
    expected = served.processor.decode(served.greedy(steady.prompt, 60))
    answers: list[str] = []
    witness = threading.Thread(target=lambda: answers.extend(texts(heard(engine, [steady]))))
    witness.start()
    job = Job(prompt(served, "the quick brown fox"), greedy(60))
    for index in range(200):
        (generation,) = engine.submit([job], lambda *_: None)
        time.sleep((index % 5) * 0.001)
        generation.cancel()
    witness.join()
    assert answers == [expected]
    settled(engine)
    assert texts(heard(engine, [steady] * 3)) == [expected] * 3


def test_one_failure_ends_one_generation(
    engine: Engine, served: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cursed = served.processor.encode("丹")[0]
    step = engine._slots.step

    def failing(slots: list[int], tokens: list[int], positions: list[int]) -> torch.Tensor:
        if cursed in tokens:
            raise ValueError("secret detail")
        return step(slots, tokens, positions)

    fine = [Job(prompt(served, text), greedy(12)) for text in ("def add(", "the quick", "a")]
    expected = [served.processor.decode(served.greedy(job.prompt, 12)) for job in fine]
    monkeypatch.setattr(engine._slots, "step", failing)
    said = heard(engine, [fine[0], Job([served.processor.end_id, cursed], greedy(12)), *fine[1:]])
    assert said[1] == [Piece("", 0, "failed")]
    assert texts([said[0], *said[2:]]) == expected
    assert "running 0\n" in settled(engine)


def test_a_full_queue_refuses_at_once_and_takes_all_or_nothing(served: Tiny) -> None:
    job = Job(prompt(served, "the"), greedy(60))
    with Engine(served, slots=1, waiting=2) as engine:
        with pytest.raises(Refusal) as caught:
            engine.submit([job] * 4, lambda *_: None)
        assert caught.value.code == "overloaded"
        assert len(heard(engine, [job] * 3)) == 3


def test_who_waits_too_long_is_told(served: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "QUEUE_SECONDS", 0.0)
    job = Job(prompt(served, "the"), greedy(40))
    with Engine(served, slots=1) as engine:
        ends = [each[-1].finish for each in heard(engine, [job, job])]
    assert ends[1] == "late"


def test_leaving_the_engine_ends_what_runs_and_waits(served: Tiny) -> None:
    said: list[tuple[int, Piece]] = []
    with Engine(served, slots=1) as engine:
        engine.submit([Job(prompt(served, "the"), greedy(90))] * 3, lambda *piece: said.append(piece))
    assert {index for index, piece in said if piece.finish} == {0, 1, 2}
    with pytest.raises(Refusal):
        engine.submit([], lambda *_: None)


def test_leaving_a_stream_frees_its_slot(engine: Engine, served: Tiny) -> None:
    for _piece in engine.stream(Job(prompt(served, "the"), greedy(90))):
        break
    assert 'danlu_generations_total{end="cancelled"} 1\n' in settled(engine)
