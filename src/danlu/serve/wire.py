"""Bytes to JSON and back, strictly: limits, UTF-8, no duplicate keys, finite numbers, whole characters."""

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from danlu.serve import forms
from danlu.serve.refusal import Refusal

BODY_LIMIT = 2**20  # bytes
PICTURES_LIMIT = 10 * 2**20  # where pictures are asked about
BODY_SECONDS = 30.0


class StrictRequest(Request):
    """A request whose body is read within limits and parsed without leniency."""

    limit = BODY_LIMIT

    async def body(self) -> bytes:
        """The whole body; refused by its declared length before a byte is read, else while it is read."""
        if not hasattr(self, "_body"):
            if int(self.headers.get("content-length", 0)) > self.limit:
                raise Refusal("body_too_large", limit=self.limit)
            self._body = await self._read()
        return self._body

    async def _read(self) -> bytes:
        read = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in self.stream():
                    read += chunk
                    if len(read) > self.limit:
                        raise Refusal("body_too_large", limit=self.limit)
        except TimeoutError as error:
            raise Refusal("body_timeout", seconds=int(BODY_SECONDS)) from error
        return bytes(read)

    async def json(self) -> Any:
        return parse(await self.body())


class StrictRoute(APIRoute):
    """A route that reads JSON bodies through StrictRequest, and takes no other bodies."""

    request = StrictRequest

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(self.reading(request))

        return handle

    def reading(self, request: Request) -> Request:
        """The request as its body is read."""
        if request.method == "POST" and request.headers.get("content-type", "").split(";")[0] != "application/json":
            raise Refusal("not_json")
        return self.request(request.scope, request.receive)


class PicturesRequest(StrictRequest):
    """A request that may hold pictures."""

    limit = PICTURES_LIMIT


class Upload(PicturesRequest):
    """Pictures as files; what asks for JSON is given what they mean."""

    kind = ""

    async def json(self) -> Any:
        return forms.read(self.kind, await self.body())


class PicturesRoute(StrictRoute):
    """Takes pictures as JSON, as files of a form, and one as the whole body."""

    request = PicturesRequest

    def reading(self, request: Request) -> Request:
        kind = request.headers.get("content-type", "")
        if request.method != "POST" or not forms.taken(kind):
            return super().reading(request)
        others = [each for each in request.scope["headers"] if each[0] != b"content-type"]
        made = Upload({**request.scope, "headers": [*others, (b"content-type", b"application/json")]}, request.receive)
        made.kind = kind
        return made


def parse(body: bytes) -> Any:
    """The JSON value in `body`.

    Raises:
        Refusal: not UTF-8, not JSON, too deep, a duplicate key, NaN or infinity, a lone surrogate.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_float=_finite, parse_constant=_not_finite)
    except (ValueError, RecursionError) as error:
        raise Refusal("invalid_json") from error
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refusal("not_text") from error
    return value


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()) + b"\n\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refusal("duplicate_key")
    return found


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _not_finite(text)


def _not_finite(text: str) -> float:
    raise ValueError("not a finite number")
