"""A small streaming client of the API, from the standard library alone: what the demo calls its own server with."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from danlu.errors import UserError
from danlu.messages import text
from danlu.messages.reasons import because


class Client:
    """Talks to the server at `url` ("http://127.0.0.1:8000"); every method raises UserError E604 or E605."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 300.0):
        place = urlsplit(url)
        if place.scheme != "http" or not place.hostname:
            raise ValueError(f"not an http address: {url}")
        self._url, self._host, self._port, self._timeout = url, place.hostname, place.port or 80, timeout
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def models(self) -> list[str]:
        """The names the server answers to."""
        with self._asked("GET", "/v1/models") as response:
            return [model["id"] for model in json.load(response)["data"]]

    def complete(self, model: str, prompt: str, **options: Any) -> Iterator[str]:
        """The continuation of `prompt`, piece by piece; options as in /v1/completions."""
        body = {"model": model, "prompt": prompt, **options}
        return (choice["text"] for choice in self._choices("/v1/completions", body))

    def chat(self, model: str, messages: Sequence[Mapping[str, str]], **options: Any) -> Iterator[str]:
        """The answer to `messages`, piece by piece; options as in /v1/chat/completions."""
        body = {"model": model, "messages": list(messages), **options}
        return (choice["delta"].get("content", "") for choice in self._choices("/v1/chat/completions", body))

    def _choices(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with self._asked("POST", path, {**body, "stream": True}) as response:
            for event in _events(response):
                if "error" in event:
                    raise UserError("E605", url=self._url, reason=event["error"]["message"])
                yield from event["choices"]

    @contextmanager
    def _asked(self, method: str, path: str, body: Any = None) -> Iterator[http.client.HTTPResponse]:
        """The answer with status 200 to one request, over a connection of its own."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise UserError("E605", url=self._url, reason=_reason(response))
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise UserError("E604", url=self._url, reason=because(error)) from error
        finally:
            connection.close()


def _reason(response: http.client.HTTPResponse) -> str:
    """What the server said, or just the status where it is no danlu server."""
    try:
        return str(json.load(response)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"{response.status} {response.reason}"


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event, until [DONE]."""
    for line in response:
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            return
        if data:
            yield json.loads(data)
    raise ConnectionError(text("serve.cut_short"))
