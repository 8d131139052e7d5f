"""The peak memory of some work: on the processor in a child process that does it, on a GPU as its allocator counts."""

import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable

import torch

from danlu import room

_PATIENCE = 120.0  # seconds that a probe may take


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the processor."""
    said = ("can't allocate memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in said)


def peak_on_gpu(work: Callable[[], object], device: str) -> float:
    """Peak bytes of the CUDA allocator while it does `work`; inf where memory ran out. No child needs to die of it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not exhausted(error):
            raise
        return math.inf
    finally:
        torch.cuda.empty_cache()
    return float(torch.cuda.max_memory_reserved(device))


def peak(work: Callable[[], object]) -> float | None:
    """Peak bytes of this process if it did `work`, measured in a child; inf where the child ran out of memory.

    None where it cannot be measured: not Linux, or the work failed or did not end in time.
    """
    if sys.platform != "linux":
        return None
    before, (reading, writing) = room.resident(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which the child does not use
        child = os.fork()
    if child == 0:
        _measure(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        status = _ended(child)
        said = pipe.read() if os.WIFEXITED(status) else b""
    if said == b"full" or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return math.inf
    return before + float(said) if said else None


def _measure(work: Callable[[], object], writing: int) -> None:
    """The child: do the work on one thread (threads do not survive a fork), say how far it grew, and end."""
    try:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)
        room.offer()
        torch.set_num_threads(1)
        start = room.resident()
        work()
        os.write(writing, str(max(0.0, room.peak() - start)).encode())
    except (RuntimeError, MemoryError) as error:
        os.write(writing, b"full" if exhausted(error) else b"")
    finally:
        os._exit(0)


def _ended(child: int) -> int:
    """Wait for a child, at most _PATIENCE seconds; its status."""
    limit = time.monotonic() + _PATIENCE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > limit:
            os.kill(child, signal.SIGTERM)  # not SIGKILL, which is the kernel's word for no memory
            return os.waitpid(child, 0)[1]
        time.sleep(0.005)
