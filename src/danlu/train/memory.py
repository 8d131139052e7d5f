"""How much memory a training needs, how much there is, and a finer cut of its steps where it does not fit.

Nothing here changes what is learned: a step cut into more micro-batches has the same gradient up to rounding.
"""

import contextlib
import copy
import json
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from danlu import files
from danlu.errors import UserError
from danlu.messages import text
from danlu.nn.losses import CHUNK_LOGITS

if TYPE_CHECKING:
    from danlu.tasks.task import Task
    from danlu.train.plan import Plan, Request

RUNNING = "running.json"
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_PROCESS = 330e6  # bytes of a process that has loaded torch and its data
_SURE = 0.25  # share of the room below which a forecast is not checked by a probe
_FULL = 0.9  # share of the room that a training may take; page cache and other processes need some
_NEAR = 0.8  # share of the room above which a process killed without a word was most likely killed for memory
_PATIENCE = 120.0  # seconds that a probe may take
_SCATTERED = 1.4  # what one micro-batch frees is not all found again by the next (measured with glibc)
_STATE = {"sgd": 4, "rmsprop": 4, "adam": 8, "adamw": 8, "muon": 8}  # bytes of optimizer state per weight, at most
_PASSING = {"sgd": 0, "rmsprop": 4, "adam": 4, "adamw": 4, "muon": 12}  # bytes per weight held during an update


# --- the forecast ------------------------------------------------------------------------------------


def shares(net: nn.Module, plan: "Plan") -> dict[str, float]:
    """Bytes of a training by purpose: process, weights, optimizer, activations."""
    weights = sum(p.numel() for p in net.parameters())
    matrices = sum(p.numel() for p in net.parameters() if p.ndim >= 2)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    lowered = matrices * 2 if plan.precision == "bf16" else 0
    gradients = trained * (4 + (2 if lowered else 4 if plan.accumulate > 1 else 0))  # summed, and of a micro-batch
    kept = weights * 4 + trained * 4  # the best weights, and those to which a training returns
    return {
        "process": _PROCESS,
        "weights": weights * 4 + lowered + kept + gradients,
        "optimizer": trained * _STATE[plan.optimizer],
        "activations": max(_activations(net, plan) + _loss(net, plan), trained * _PASSING[plan.optimizer]),
    }


def forecast(net: nn.Module, plan: "Plan") -> float:
    """Bytes that the process of a training will hold at its peak."""
    return sum(shares(net, plan).values())


def _activations(net: nn.Module, plan: "Plan") -> float:
    """What the stack keeps of one micro-batch for its backward pass; 0 where the network holds no Transformer."""
    config = getattr(getattr(net, "core", None), "config", None)
    if config is None:
        return 0.0
    width, inner = config.dim, config.heads * config.head_dim
    dropped = 4 * width if plan.dropout else 0  # two masks, and what they were applied to
    per_token = 5 * width + 6 * inner + 3 * config.kv_heads * config.head_dim + 4 * config.hidden + dropped
    size = 2 if plan.precision == "bf16" else 4
    kept = plan.rows * plan.context * config.layers * per_token * size
    if plan.attention == "written":  # of the layer at work, the scores are held several times
        kept += plan.rows * (config.layers + 4) * config.heads * plan.context**2 * size
    return kept * (_SCATTERED if plan.accumulate > 1 else 1)


def _loss(net: nn.Module, plan: "Plan") -> float:
    """The logits of a chunk, and the gradients of the head's weight and input while they are formed."""
    weight = getattr(getattr(net, "head", None), "weight", None)
    if weight is None or weight.ndim != 2:
        return 0.0
    vocab, width = weight.shape
    tokens, size = plan.rows * plan.context, 2 if plan.precision == "bf16" else 4
    chunk = min(tokens, max(CHUNK_LOGITS // vocab, 64)) * vocab * size
    return float(chunk + vocab * width * (4 + size) + 2 * tokens * width * size)


# --- what there is -----------------------------------------------------------------------------------


def room() -> float:
    """Bytes that this process may hold in all: what it holds, and what is free on the machine and in its cgroups.

    Infinite where the system does not say.
    """
    return resident() + min([_free(), *(_left(folder) for folder in _groups())])


def resident() -> float:
    """Bytes that this process holds now."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((_PROC / "self/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    return 0.0


def _free() -> float:
    """Bytes that the machine can give without swapping."""
    return _figures(_PROC / "meminfo").get("MemAvailable:", math.inf) * 1024


def _groups() -> list[Path]:
    """The folders of the cgroups that limit this process, versions 1 and 2, from the innermost out."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "" or "memory" in controllers.split(","):
            root = _CGROUPS / "memory" if controllers else _CGROUPS
            inner = root / path.strip("/")
            found += [folder for folder in (inner, *inner.parents) if folder == root or root in folder.parents]
    return found


def _left(group: Path) -> float:
    """Bytes below a cgroup's limit; files that it only holds in the page cache count as free."""
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            left = int((group / limit).read_text()) - int((group / usage).read_text())
            return left + _figures(group / "memory.stat").get(cache, 0.0)
    return math.inf


def _kills() -> float:
    """How many processes of our cgroup the kernel has killed for memory."""
    for group in _groups():
        for name in ("memory.events", "memory.oom_control"):
            if (count := _figures(group / name).get("oom_kill")) is not None:
                return count
    return 0.0


def _figures(path: Path) -> dict[str, float]:
    """The lines "name figure ..." of a file of the kernel's; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: float(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


# --- before the first step ---------------------------------------------------------------------------


def fitted(request: "Request", net: nn.Module, plan: "Plan") -> "Plan":
    """The plan, its micro-batches cut until one fits: by the forecast, and by a probe where it could matter.

    Raises:
        UserError: E403, not one row fits.
    """
    free, wanted = room(), plan.accumulate
    while not fits(request, net, plan, free):
        parts = finer(request.task, plan.rows, plan.accumulate)
        if parts is None:
            raise refusal(net, plan)
        plan = replace(plan, rows=plan.rows * plan.accumulate // parts, accumulate=parts, unsplit=wanted)
    return plan


def allows(net: nn.Module, plan: "Plan") -> bool:
    """Whether a plan is forecast to fit now."""
    return forecast(net, plan) <= _FULL * room()


def fits(request: "Request", net: nn.Module, plan: "Plan", free: float) -> bool:
    """Whether a step of this plan takes at most nine tenths of `free` bytes."""
    needed = forecast(net, plan)
    if _SURE * free < needed < 2 * free:
        measured = probe(lambda: _one_step(request, net, plan))
        needed = needed if measured is None else measured
    return needed <= _FULL * free


def finer(task: "Task", rows: int, accumulate: int) -> int | None:
    """Micro-batches of the next finer cut of a step into equal parts; None where there is none."""
    if task.coupled != "none":  # its samples see each other
        return None
    total = rows * accumulate
    return next((n for n in range(2 * accumulate, total + 1) if total % n == 0), None)


def refusal(net: nn.Module, plan: "Plan") -> UserError:
    """E403 with what takes the memory, largest first."""
    needed = shares(net, replace(plan, rows=1, accumulate=plan.rows * plan.accumulate))
    largest = sorted(needed.items(), key=lambda item: -item[1])
    evidence = [f"{_mb(size):>10} MB  {text(f'memory.{name}')}" for name, size in largest]
    total = sum(needed.values())
    return UserError("E403", needed=_mb(total), free=_mb(_FULL * room()), context=plan.context, evidence=evidence)


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}"


def _one_step(request: "Request", net: nn.Module, plan: "Plan") -> None:
    from danlu.train.loop import Training
    from danlu.train.plan import prepare

    copied = copy.deepcopy(net)
    prepare(copied, plan)
    short = replace(plan, steps=100, accumulate=min(2, plan.accumulate))
    next(Training(request.task, copied, request.train, short, seed=0).events(request.loader, None))


def probe(work: Callable[[], object]) -> float | None:
    """Peak bytes of this process if it did `work`, measured in a child; inf where the child ran out of memory.

    None where it cannot be measured: not Linux, or the work failed or did not end in time.
    """
    if sys.platform != "linux":
        return None
    before, (reading, writing) = resident(), os.pipe()
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
        with contextlib.suppress(OSError):  # where memory is short, let the kernel choose this process
            (_PROC / "self/oom_score_adj").write_text("1000")
        torch.set_num_threads(1)
        start = resident()
        work()
        os.write(writing, str(max(0.0, _peak() - start)).encode())
    except (RuntimeError, MemoryError) as error:
        os.write(writing, b"full" if exhausted(error) else b"")
    finally:
        os._exit(0)


def _peak() -> float:
    """The most bytes that this process ever held."""
    return _figures(_PROC / "self/status").get("VmHWM:", 0.0) * 1024


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


# --- when it ran out ---------------------------------------------------------------------------------


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the processor."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def release() -> None:
    """Give back what the allocator keeps on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def running(folder: Path, plan: "Plan") -> Iterator[None]:
    """Leave a mark in a training's folder for as long as it runs: it stays where the process is killed."""
    mark = {"kills": _kills(), "boot": _boot(), "needed": plan.memory_mb * 1e6, "room": min(room(), 1e18)}
    files.write_json(folder / RUNNING, {"schema": files.SCHEMA, **mark})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / RUNNING).unlink()


def killed(folder: Path) -> bool:
    """Whether the last run of a training was killed, and most likely for its memory."""
    try:
        mark: dict[str, Any] = json.loads((folder / RUNNING).read_bytes())
        counted = mark["boot"] == _boot() and _kills() > mark["kills"]
        return bool(counted or mark["needed"] > _NEAR * mark["room"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _boot() -> str:
    """Which start of the machine this is: the kernel counts from there."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""
