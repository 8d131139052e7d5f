"""How much memory there is: what the process holds, and what machine, cgroups or GPU leave it."""

import contextlib
import ctypes
import gc
import math
import os
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def limit() -> float:
    """Bytes that this process may hold in all: what it holds, and what is free on the machine and in its cgroups.

    Infinite where the system does not say.
    """
    return resident() + min([_free(), *(_left(folder) for folder in groups())])


def on_gpu(device: str) -> float:
    """Bytes that this process may hold on a CUDA GPU: what its allocator has, and what is free there."""
    import torch

    return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def resident() -> float:
    """Bytes that this process holds now."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((_PROC / "self/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    return 0.0


def peak() -> float:
    """The most bytes that this process ever held."""
    return _figures(_PROC / "self/status").get("VmHWM:", 0.0) * 1024


def give_back() -> None:
    """Give the system back what the work before has left: what only refers to itself, and what glibc keeps of that."""
    gc.collect()
    trim()


def trim() -> None:
    """Give the system back what glibc keeps of memory that is free."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def offer() -> None:
    """Where memory is short, let the kernel choose this process first."""
    with contextlib.suppress(OSError):
        (_PROC / "self/oom_score_adj").write_text("1000")


def _free() -> float:
    """Bytes that the machine can give without swapping."""
    return _figures(_PROC / "meminfo").get("MemAvailable:", math.inf) * 1024


def groups(controller: str = "memory") -> list[Path]:
    """The folders of the cgroups that limit this process, versions 1 and 2, from the innermost out."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "" or controller in controllers.split(","):
            root = _CGROUPS / controller if controllers else _CGROUPS
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


MACHINE = "machine"


def kills() -> dict[str, float]:
    """How many processes the kernel killed for memory: of the innermost cgroup that counts, by its path; and of all.

    What it does not count is left out.
    """
    counted = {}
    for path in (group / name for group in groups() for name in ("memory.events", "memory.oom_control")):
        if (count := _figures(path).get("oom_kill")) is not None:
            counted[str(path)] = count
            break
    if (count := _figures(_PROC / "vmstat").get("oom_kill")) is not None:
        counted[MACHINE] = count
    return counted


def boot() -> str:
    """Which start of the machine this is: the kernel counts from there."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def _figures(path: Path) -> dict[str, float]:
    """The lines "name figure ..." of a file of the kernel's; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: float(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
