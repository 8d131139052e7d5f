"""The API over HTTP, asked by the official client; and what a client that leaves, or sends nonsense, gets."""

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.config import Serve
from danlu.modalities.chat import encode_chat
from danlu.nn.generate import Sampling
from danlu.serve import response
from danlu.serve.answers import TextShape
from danlu.serve.app import create_app
from danlu.serve.engine import Engine
from danlu.serve.generation import Job
from danlu.serve.jobs import Work
from danlu.serve.run import background
from danlu.serve.wire import BODY_LIMIT
from tests.serve.tiny import Tiny

TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "炼丹?"}]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def expected(served: Tiny, text: str, count: int) -> str:
    ids = [served.processor.end_id, *served.processor.encode(text)]
    return served.processor.decode(served.greedy(ids, count))


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "danlu"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("../../etc/passwd")


def test_completion(client: openai.OpenAI, served: Tiny) -> None:
    answer = client.completions.create(model="tiny", prompt="the quick", max_tokens=12, temperature=0)
    assert answer.choices[0].text == expected(served, "the quick", 12)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 1 + len(served.processor.encode("the quick"))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_every_prompt_has_its_choices_in_order(client: openai.OpenAI, served: Tiny) -> None:
    prompts = ["def add(", "炼丹"]
    answer = client.completions.create(model="tiny", prompt=prompts, n=2, max_tokens=8, temperature=0)
    wanted = [expected(served, text, 8) for text in prompts for _ in range(2)]
    assert [choice.text for choice in answer.choices] == wanted
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_streamed_completion_is_the_whole_one(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "炼", "max_tokens": 40, "temperature": 1.3, "seed": 5}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert [c.finish_reason for chunk in chunks for c in chunk.choices][-1] == whole.choices[0].finish_reason


def test_chat_whole_and_streamed(client: openai.OpenAI, served: Tiny) -> None:
    ids, _ = encode_chat(served.processor, TALK, reply=True)
    asked: dict[str, Any] = {"model": "tiny", "messages": TALK, "max_completion_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content == served.processor.decode(served.greedy(ids, 20))
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


def test_n_samples_differ_and_repeat_under_their_seed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": TALK, "max_tokens": 20, "temperature": 2, "seed": -3, "n": 3}
    first, second = (client.chat.completions.create(**asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in second.choices] == texts


def test_a_request_that_says_nothing_gets_the_models_usual_way(base: Tiny) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "the", "max_tokens": 16, "seed": 4}
    way = {"temperature": 1.7, "top_p": 0.9, "top_k": 11, "repetition_penalty": 1.5}
    base = replace(base, usual=Sampling(**way))  # type: ignore[arg-type]

    def answer(**ways: object) -> str:
        with Engine(base) as engine:
            said: str = ask(engine, COMPLETIONS, json.dumps(asked | ways).encode()).json()["choices"][0]["text"]
            return said

    usual = answer()
    assert usual == answer(**way)
    greedy = base.processor.decode(base.greedy([base.processor.end_id, *base.processor.encode("the")], 16))
    assert usual != answer(temperature=0, top_k=0, top_p=1, repetition_penalty=1) == greedy


def test_a_base_model_does_not_pretend_to_chat(base: Tiny) -> None:
    with Engine(base) as engine:
        body = json.dumps({"model": "tiny", "messages": TALK}).encode()
        refused = ask(engine, "/v1/chat/completions", body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_a_chat_model")


def test_a_client_that_leaves_frees_its_slots(served: Tiny) -> None:
    slow = served.network.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    with background(served, "tiny", Serve(port=0, slots=3)) as url:
        for index in range(12):
            leave(url, stream=index % 2 == 0, after=0.03 * (index % 3))
        assert eventually(lambda: "danlu_generations_running 0\n" in httpx.get(f"{url}/metrics").text)
        counts = httpx.get(f"{url}/metrics").text
    slow.remove()
    assert "danlu_generations_waiting 0\n" in counts
    assert 'danlu_generations_total{end="cancelled"} 12\n' in counts


def leave(url: str, *, stream: bool, after: float) -> None:
    """Ask for a long answer, and hang up once the server has the question."""
    body = {"model": "tiny", "prompt": "the", "max_tokens": 90, "temperature": 0, "stream": stream}
    connection = http.client.HTTPConnection(httpx.URL(url).host, httpx.URL(url).port)
    before = started(url)
    connection.request("POST", "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert eventually(lambda: started(url) > before)
    time.sleep(after)
    connection.close()


def started(url: str) -> int:
    """Generations that the engine ever accepted."""
    lines = [line.split() for line in httpx.get(f"{url}/metrics").text.splitlines()]
    return sum(int(line[1]) for line in lines if line[0].startswith("danlu_generations_"))


def test_a_client_that_does_not_read_is_given_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "WRITE_SECONDS", 0.05)
    sent: list[Any] = []

    async def stuck(message: Any) -> None:
        sent.append(message)
        await asyncio.sleep(30 * (message["type"] == "http.response.body"))

    async def silent() -> Any:
        await asyncio.sleep(30)

    job = Job([engine.served.processor.end_id], Sampling(temperature=0, max_tokens=90))
    answer = response.GenerationResponse(engine, Work([job], 1), TextShape("tiny"), stream=True, include_usage=False)
    asyncio.run(answer({"type": "http"}, silent, stuck))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def eventually(holds: Any) -> bool:
    return any(holds() or time.sleep(0.02) for _ in range(250))


# --- requests that are not served, in process ------------------------------------------------------------


def ask(
    engine: Engine, path: str, body: Any = None, method: str = "POST", key: str | None = None, **headers: str
) -> Any:
    """One request to the application itself."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(engine, "tiny", key=key), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http_client:
            json_type = {"Content-Type": "application/json"} if body is not None else {}
            return await http_client.request(method, path, content=body, headers={**json_type, **headers})

    return asyncio.run(send())


def complete(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 2, **fields}).encode()


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": TALK, "max_tokens": 2, **fields}).encode()


COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BAD = [
    (COMPLETIONS, b"", 400, "missing_field", "body"),
    (COMPLETIONS, b"{", 400, "invalid_json", None),
    (COMPLETIONS, b"[]", 400, "invalid_value", "body"),
    (COMPLETIONS, b"{}", 400, "missing_field", "model"),
    (COMPLETIONS, complete()[:-1] + b', "model": "tiny"}', 400, "duplicate_key", None),
    (COMPLETIONS, complete(prompt="\ud800"), 400, "not_text", None),
    (COMPLETIONS, complete().decode().encode("utf-16"), 400, "invalid_json", None),
    (COMPLETIONS, complete(temperature=float("nan")), 400, "invalid_json", None),
    (COMPLETIONS, complete(temperature=-0.1), 400, "invalid_value", "temperature"),
    (COMPLETIONS, complete(temperature=2.1), 400, "invalid_value", "temperature"),
    (COMPLETIONS, complete(temperature="1"), 400, "invalid_value", "temperature"),
    (COMPLETIONS, complete(top_p=0), 400, "invalid_value", "top_p"),
    (COMPLETIONS, complete(max_tokens=-1), 400, "invalid_value", "max_tokens"),
    (COMPLETIONS, complete(max_tokens=True), 400, "invalid_value", "max_tokens"),
    (COMPLETIONS, complete(max_tokens=97), 400, "too_many_tokens", "max_tokens"),
    (COMPLETIONS, complete(n=5), 400, "invalid_value", "n"),
    (COMPLETIONS, complete(stop=[""]), 400, "invalid_value", "stop.0"),
    (COMPLETIONS, complete(stop=["x"] * 9), 400, "invalid_value", "stop"),
    (COMPLETIONS, complete(stop="x" * 65), 400, "invalid_value", "stop"),
    (COMPLETIONS, complete(seed=2**63), 400, "invalid_value", "seed"),
    (COMPLETIONS, complete(frequency_penalty=1), 400, "invalid_value", "frequency_penalty"),
    (COMPLETIONS, complete(max_token=3), 400, "unknown_field", "max_token"),
    (COMPLETIONS, complete(prompt=["a", 2]), 400, "invalid_value", "prompt.1"),
    (COMPLETIONS, complete(prompt="word " * 300), 400, "prompt_too_long", "prompt"),
    (COMPLETIONS, complete(model="other"), 404, "model_not_found", "model"),
    (COMPLETIONS, complete(model="../tiny"), 404, "model_not_found", "model"),
    (COMPLETIONS, b" " * (BODY_LIMIT + 1), 413, "body_too_large", None),
    (CHAT, chat(messages=[]), 400, "invalid_value", "messages"),
    (CHAT, chat(messages=[{"role": "root", "content": "x"}]), 400, "invalid_value", "messages.0.role"),
    (CHAT, chat(messages=[{"role": "user"}]), 400, "missing_field", "messages.0.content"),
    (CHAT, chat(messages=[{"role": "user", "content": "x", "id": 1}]), 400, "unknown_field", "messages.0.id"),
    (CHAT, chat(tools=[]), 400, "unknown_field", "tools"),
    (CHAT, chat(messages=TALK * 100), 400, "prompt_too_long", "messages"),
    ("/v1/nothing", complete(), 404, "not_found", None),
    ("/v1/models", complete(), 405, "method_not_allowed", None),
]


@pytest.mark.parametrize(("path", "body", "status", "code", "param"), BAD)
def test_bad_requests(engine: Engine, path: str, body: bytes, status: int, code: str, param: str | None) -> None:
    refused = ask(engine, path, body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


def test_a_long_prompt_is_refused_with_both_numbers(engine: Engine, served: Tiny) -> None:
    message = ask(engine, COMPLETIONS, complete(prompt="word " * 300)).json()["error"]["message"]
    tokens = 1 + len(served.processor.encode("word " * 300))
    assert str(tokens) in message
    assert str(served.context) in message


def test_a_body_without_a_length_is_counted_while_it_is_read(engine: Engine) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    assert ask(engine, COMPLETIONS, endless()).status_code == 413


def test_what_a_page_of_another_site_can_send_is_refused(engine: Engine) -> None:
    assert ask(engine, COMPLETIONS, complete(), **{"Content-Type": "text/plain"}).status_code == 415
    assert ask(engine, COMPLETIONS, complete(), Host="evil.example").status_code == 403
    assert ask(engine, COMPLETIONS, complete(), Host="127.0.0.1.evil.example:8000").status_code == 403
    assert ask(engine, COMPLETIONS, complete(), Origin="http://evil.example").status_code == 403
    assert ask(engine, COMPLETIONS, complete(), Origin="null").status_code == 403
    assert ask(engine, COMPLETIONS, complete(), Origin="http://localhost:3000", Host="[::1]:8000").status_code == 200


def test_every_path_but_liveness_needs_the_key(engine: Engine) -> None:
    paths = [COMPLETIONS, CHAT, "/v1/models", "/v1/models/tiny", "/metrics", "/health/ready", "/openapi.json", "/x"]
    for header in ("", "Bearer", "Bearer secre", "Bearer secret2", "Basic secret", "Bearer  secret"):
        for path in paths:
            refused = ask(engine, f"{path}?api_key=secret", complete(), key="secret", Authorization=header)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer"), (header, path)
    assert ask(engine, "/health/live", method="GET", key="secret").status_code == 200
    assert ask(engine, COMPLETIONS, complete(), key="secret", Authorization="Bearer secret").status_code == 200


def test_overload_and_drain_are_said_with_a_time_to_come_back(served: Tiny) -> None:
    with Engine(served, slots=1, waiting=1) as engine:
        full = ask(engine, COMPLETIONS, complete(n=4))
        assert (full.status_code, full.json()["error"]["code"]) == (503, "overloaded")
        assert full.headers["Retry-After"] == "1"
        assert ask(engine, "/health/ready", method="GET").status_code == 200
        engine.drain()
        assert ask(engine, "/health/ready", method="GET").status_code == 503
        assert ask(engine, COMPLETIONS, complete()).json()["error"]["code"] == "shutting_down"
        assert ask(engine, "/health/live", method="GET").status_code == 200


def test_a_mistake_of_ours_tells_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("/secret/path at 0x7f")

    monkeypatch.setattr(engine._slots, "step", fail)
    for stream in (False, True):
        broken = ask(engine, COMPLETIONS, complete(stream=stream))
        assert broken.status_code == 500
        assert "secret" not in broken.text
        assert broken.headers["X-Request-Id"]


names = st.sampled_from(
    ["model", "prompt", "messages", "max_tokens", "temperature", "stop", "stream_options", "n", "x"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["tiny", TALK]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(fields=st.dictionaries(names, values, max_size=6), path=st.sampled_from([COMPLETIONS, CHAT]))
def test_no_request_is_answered_with_a_server_error(shared_engine: Engine, fields: dict[str, Any], path: str) -> None:
    body = json.dumps({"model": "tiny", **fields}).encode()
    assert ask(shared_engine, path, body).status_code in (200, 400, 404)


@pytest.fixture(scope="module")
def shared_engine(served: Tiny) -> Iterator[Engine]:
    with Engine(served) as running:
        yield running
