"""The processes of one run. Rank 0 goes through the stages; the others wait until a training needs them.

Who starts them says so in the environment, with torchrun's names: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Until a
training begins nothing but a key-value store connects them, and without other ranks not even torch is loaded here.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

LAUNCHER = "DANLU_LAUNCHER"  # set where danlu itself has started the ranks, and watches them
_LOOK = 0.05  # seconds between looks for the next word of rank 0
_TURN = 3.0  # seconds in which the ranks find out who of them speaks
_PATIENCE = timedelta(minutes=30)  # for the others to come, and in a collective call

_FAILED, _HEARD = "failed", "heard"  # why rank 0 ends, and how many of the others know it or do not need to

Value = TypeVar("Value")


class RankLost(Exception):
    """Another rank has ended in the midst of common work. Everything saved is good: the same command goes on."""


def rank() -> int:
    """Which of the processes this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes work on this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def here() -> int:
    """How many of them run on this machine, and share its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether the process that started this one says what there is to say about ranks."""
    return LAUNCHER in os.environ


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What tells a process of this machine which of `count` ranks it is; all meet at a port that rank 0 opens."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    network = {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", _loopback()), "MASTER_ADDR": "127.0.0.1"}
    return {name: str(value) for name, value in places.items()} | network


def _loopback() -> str:
    """The network interface of the machine itself: a host name that leads nowhere does not matter then."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), "")


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- what rank 0 says --------------------------------------------------------------------------------


@cache
def _store() -> Any:
    from torch.distributed import PrefixStore, rendezvous

    store = next(rendezvous("env://", timeout=_PATIENCE))[0]
    return PrefixStore(f"danlu-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # it outlives a restart


class _Words:
    """How many there have been: the key of the next one."""

    said = heard = 0


def tell(word: Any) -> None:
    """Say something (JSON) to all other ranks; only rank 0 does."""
    if count() > 1:
        _store().set(f"word/{_Words.said}", json.dumps(word))
        _Words.said += 1


def hear() -> Any:
    """The next word of rank 0, however long it takes.

    Raises:
        RankLost: rank 0 is gone.
    """
    with watched():
        while not _store().check([f"word/{_Words.heard}"]):
            if _store().check([_FAILED]):
                _store().add(_HEARD, 1)
                raise RankLost
            time.sleep(_LOOK)  # in Python, where a signal can end it
        word = json.loads(_store().get(f"word/{_Words.heard}"))
    _Words.heard += 1
    return word


def agreed(make: Callable[[], Value]) -> Value:
    """What rank 0 makes, on every rank: for all that is measured or looked up. The value must be JSON data."""
    if rank() != 0:
        return hear()
    value = make()
    tell(value)
    return value


def calls() -> Iterator[dict[str, Any]]:
    """On the other ranks: the trainings that rank 0 begins, until it has no more."""
    while (word := hear()) is not None:
        yield word


def say_once(name: str, say: Callable[[], None]) -> None:
    """Say what has gone wrong, which several ranks may have found: rank 0 if it has, else the first of the others.

    `name` is the same on all ranks that found the same. Rank 0 holds what connects the ranks, so it stays until the
    others have looked, or have had the time to.
    """
    if rank() == 0:
        say()
    try:
        mine = count() > 1 and _is_first(name)
    except Exception:  # noqa: BLE001, nothing connects the ranks any more: better twice than never
        mine = rank() != 0
    if mine:
        say()


def _is_first(name: str) -> bool:
    """Whether this rank, which is not 0, is the one to speak; rank 0 tells the others that it has."""
    store = _store()
    if rank() == 0:
        store.set(_FAILED, name)
        _until(lambda: store.add(_HEARD, 0) == count() - 1)
        return False
    _until(lambda: store.check([_FAILED]))
    said = store.check([_FAILED]) and store.get(_FAILED).decode() == name
    first = not said and store.add(f"said/{name}", 1) == 1
    store.add(_HEARD, 1)
    return bool(first)


def _until(true: Callable[[], bool]) -> None:
    """Wait until something is true, at most _TURN seconds."""
    limit = time.monotonic() + _TURN
    while not true() and time.monotonic() < limit:
        time.sleep(_LOOK)


# --- together ----------------------------------------------------------------------------------------


@cache
def join() -> None:
    """Connect all ranks for collective calls: gloo between processors, NCCL between GPUs."""
    import torch
    import torch.distributed

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, store=_store(), rank=rank(), world_size=count(), timeout=_PATIENCE)


def leave() -> None:
    """End the connection, where there is one."""
    if count() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Turn the failure of common work because another rank is gone into RankLost."""
    try:
        yield
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise RankLost from error


def _lost(error: RuntimeError) -> bool:
    if "torch" not in sys.modules:
        return False
    from torch.distributed import DistError

    said = str(error).lower()
    return isinstance(error, DistError) or "gloo" in said or "nccl" in said


def end_with_launcher() -> None:
    """End as by SIGTERM when the launcher is gone, however it ended: it holds the other end of standard input."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    if launched():
        threading.Thread(target=wait, daemon=True).start()
