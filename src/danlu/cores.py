"""Which processor cores a training has, and who else is at work on them.

Threads of one step wait for each other at every product: one thread that lost its core to another process holds all.
"""

import contextlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from danlu import room

_PROC = Path("/proc")
_LEAST_SECONDS = 0.5  # over which use is counted
_NOTABLE = 0.25  # of a core that another process takes, on average


@dataclass(frozen=True)
class Neighbour:
    """Another process and the cores it keeps busy."""

    pid: int
    name: str
    cores: float


def usable() -> float:
    """Cores that this process may use: its affinity and the quotas of its cgroups; inf where nothing is said."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min([float(allowed or math.inf), *(_quota(folder) for folder in room.groups("cpu"))])


def _quota(group: Path) -> float:
    """The cores that a cgroup is given; inf for no limit."""
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return math.inf


class Watch:
    """What other processes use from the making of this object on."""

    def __init__(self) -> None:
        self._start, self._before = time.monotonic(), _ticks()

    def neighbour(self) -> Neighbour | None:
        """The process that used most, if that was a fair share of a core; None also where too little time passed."""
        elapsed = time.monotonic() - self._start
        if elapsed < _LEAST_SECONDS:
            return None
        used = {pid: ticks - self._before.get(pid, ticks) for pid, ticks in _ticks().items() if pid not in _family()}
        pid = max(used, key=lambda each: used[each], default=0)
        cores = used.get(pid, 0) / os.sysconf("SC_CLK_TCK") / elapsed if used else 0.0
        return Neighbour(pid, _name(pid), cores) if cores >= _NOTABLE else None


def _ticks() -> dict[int, int]:
    """Processor time of all processes, in clock ticks; none where there is no /proc."""
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
    return found


def _family() -> set[int]:
    """This process and its parent, which may be waiting for it busily."""
    return {os.getpid(), os.getppid()}


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text().strip()
    return "?"
