"""What every HTTP request passes first: Host and Origin (no web page gets in by a trick), key, counting."""

import hmac
import logging
import secrets
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from danlu.serve.counters import Counters
from danlu.serve.refusal import Refusal

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_log = logging.getLogger("danlu.serve")
_OPEN = "/health/live"  # the one path that needs no key: a supervisor asks it


class Gate:
    """ASGI middleware. `hosts` are the names this server answers to, None for any; `key` is needed unless None."""

    def __init__(self, app: ASGIApp, *, counters: Counters, hosts: frozenset[str] | None, key: str | None):
        self._app, self._counters, self._hosts = app, counters, hosts
        self._digest = None if key is None else sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope["path"], Headers(scope=scope))
        inner = self._app if refusal is None else refusal.response()
        await inner(scope, receive, self._marked(scope["path"], send))

    def _refusal(self, path: str, headers: Headers) -> Refusal | None:
        if not self._known(headers.get("host", ""), "//"):
            return Refusal("forbidden_host")
        if "origin" in headers and not self._known(headers["origin"], ""):
            return Refusal("forbidden_origin")
        if path != _OPEN and not self._entitled(headers.get("authorization", "")):
            return Refusal("invalid_api_key")
        return None

    def _known(self, place: str, prefix: str) -> bool:
        try:
            return self._hosts is None or urlsplit(prefix + place).hostname in self._hosts
        except ValueError:
            return False

    def _entitled(self, authorization: str) -> bool:
        """Digests are compared, in constant time, so that neither length nor prefix of the key shows."""
        if self._digest is None:
            return True
        scheme, _, key = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(sha256(key.encode("latin-1")).digest(), self._digest)

    def _marked(self, path: str, send: Send) -> Send:
        request_id = secrets.token_hex(8)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                self._counters.request(path, message["status"])
                if message["status"] == 500:
                    _log.error("request %s ended with status 500", request_id)
            await send(message)

        return marked
