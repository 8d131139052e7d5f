"""Start and stop a server: the port first (before any weights load), a clean end on SIGTERM and Ctrl-C."""

import errno
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import cast

import uvicorn

from danlu.config import Serve
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.serve.app import create_app
from danlu.serve.engine import Engine
from danlu.serve.gate import LOOPBACK
from danlu.serve.generation import Served
from danlu.serve.judge import Judge, Judged

DRAIN_SECONDS = 30
_HEADER_LIMIT = 16 * 1024  # bytes
_CONNECTIONS = 1024


def serve(load: Callable[[], Served | Judged], name: str, config: Serve, announce: Callable[[str], object]) -> None:
    """Serve the model that `load` returns, under `name`, until SIGTERM or Ctrl-C; then finish what is under way.

    `announce` is called with the address once the server answers.

    Raises:
        UserError: E601 port in use, E602 open to others without a key, E603 no such address; all before `load`.
    """
    with listen(config) as listening, _engine(load(), config) as engine:
        _server(engine, name, config, lambda: announce(address(listening))).run(sockets=[listening])


@contextmanager
def background(served: Served | Judged, name: str, config: Serve) -> Iterator[str]:
    """The same server in a thread of this process, for as long as the block runs; gives its address."""
    up = threading.Event()
    with listen(config) as listening, _engine(served, config) as engine:
        server = _server(engine, name, config, up.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="danlu-http")
        thread.start()
        try:
            up.wait()
            yield address(listening)
        finally:
            server.handle_exit(0, None)
            thread.join()


def listen(config: Serve) -> socket.socket:
    """A listening socket for the recipe's host and port.

    Raises:
        UserError: E601, E602, E603.
    """
    if not _is_loopback(config.host) and not config.api_key:
        raise UserError("E602", host=config.host)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError("E603", host=config.host, port=config.port, reason=because(error)) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(_CONNECTIONS)  # from here on nobody else can have the port
    except OSError as error:
        listening.close()
        raise _unbound(config, error) from error
    return listening


def address(listening: socket.socket) -> str:
    """The address of a listening socket as clients write it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _unbound(config: Serve, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError("E601", host=config.host, port=config.port, next=config.port % 65535 + 1)
    return UserError("E603", host=config.host, port=config.port, reason=because(error))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _engine(served: Served | Judged, config: Serve) -> Engine | Judge:
    """What answers for a model: the engine where it goes on with text, else the judge."""
    if served.judges:
        return Judge(cast(Judged, served), waiting=config.queue)
    served = cast(Served, served)
    return Engine(served, slots=config.slots, waiting=config.queue)


def _server(engine: Engine | Judge, name: str, config: Serve, started: Callable[[], object]) -> "_Server":
    hosts = LOOPBACK | {config.host} if _is_loopback(config.host) else None
    app = create_app(engine, name, hosts=hosts, key=config.api_key)
    settings = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_HEADER_LIMIT,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return _Server(settings, engine, started)


class _Server(uvicorn.Server):
    """uvicorn, but a signal is a wish to end in order: nothing new is taken, and the exit code is 0."""

    def __init__(self, settings: uvicorn.Config, engine: Engine | Judge, started: Callable[[], object]):
        super().__init__(settings)
        self._engine, self._when_started = engine, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal does not wait any longer."""
        self._engine.drain()
        self.force_exit = self.should_exit
        self.should_exit = True
