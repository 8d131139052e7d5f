"""A small streaming client of the API, from the standard library alone: what the demo calls its own server with."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from danlu.errors import UserError


class Client:
    """Talks to the server at `url` ("http://127.0.0.1:8000"); every method raises UserError E604 or E605."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 300.0):
        place = urlsplit(url)
        assert place.scheme == "http" and place.hostname, f"not an http address: {url}"
        self._url, self._host, self._port, self._timeout = url, place.hostname, place.port or 80, timeout
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def models(self) -> list[str]:
        """The names the server answers to."""
        with closing(self._connection()) as connection:
            answer = json.loads(self._answer(connection, "GET", "/v1/models").read())
        return [model["id"] for model in answer["data"]]

    def complete(self, model: str, prompt: str, **options: Any) -> Iterator[str]:
        """The continuation of `prompt`, piece by piece; options as in /v1/completions."""
        body = {"model": model, "prompt": prompt, **options}
        return (choice["text"] for choice in self._choices("/v1/completions", body))

    def chat(self, model: str, messages: Sequence[Mapping[str, str]], **options: Any) -> Iterator[str]:
        """The answer to `messages`, piece by piece; options as in /v1/chat/completions."""
        body = {"model": model, "messages": list(messages), **options}
        return (choice["delta"].get("content", "") for choice in self._choices("/v1/chat/completions", body))

    def _choices(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with closing(self._connection()) as connection:
            for event in _events(self._answer(connection, "POST", path, {**body, "stream": True})):
                if "error" in event:
                    raise self._refused(event)
                yield from event["choices"]

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _answer(self, connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), self._headers)
            response = connection.getresponse()
        except OSError as error:
            raise UserError("E604", url=self._url, reason=error.strerror or str(error)) from error
        if response.status != 200:
            raise self._refused(json.loads(response.read()))
        return response

    def _refused(self, answer: Mapping[str, Any]) -> UserError:
        return UserError("E605", url=self._url, reason=answer["error"]["message"])


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event, until [DONE]."""
    for line in response:
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            return
        if data:
            yield json.loads(data)
