"""What memory there is, and what some work takes of it."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from danlu import room
from danlu.train import mark, probe

MB = 1e6
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured through /proc")


def system(folder: Path, monkeypatch: pytest.MonkeyPatch, groups: str, figures: dict[str, str]) -> None:
    """A machine with 8 GB free, and a process that holds a million pages of it."""
    machine = {"meminfo": "MemTotal: 16 kB\nMemAvailable: 8000000 kB\n", "vmstat": "pgfault 7\noom_kill 6\n"}
    for name, content in ({"self/cgroup": groups} | machine).items():
        (folder / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "proc" / name).write_text(content)
    for name, content in figures.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(content)
    monkeypatch.setattr(room, "_PROC", folder / "proc")
    monkeypatch.setattr(room, "_CGROUPS", folder / "groups")
    monkeypatch.setattr(room, "resident", lambda: 1e9)


V2 = {"a/b/memory.max": "max\n", "a/b/memory.current": "1000\n", "a/memory.max": "5000000000\n"}
V2 |= {"a/memory.current": "3000000000\n", "a/memory.stat": "anon 5\ninactive_file 1000000000\n"}
V1 = {"memory/a/memory.limit_in_bytes": "4000000000", "memory/a/memory.usage_in_bytes": "1500000000"}
V1 |= {
    "memory/a/memory.stat": "cache 9\ntotal_inactive_file 500000000\n",
    "memory/a/memory.oom_control": "oom_kill 4\n",
}
MACHINES = {
    "no cgroups": ("", {}, 8.192e9),
    "version 2, limited further out": ("0::/a/b\n", V2, 3e9),
    "version 2, inside a container": ("0::/\n", {"memory.max": "2000", "memory.current": "500"}, 1500),
    "version 1": ("5:cpu:/\n4:memory,hugetlb:/a\n0::/\n", V1, 3e9),
    "version 1, another path than ours": ("4:memory:/x/y\n", {"memory/memory.limit_in_bytes": "no"}, 8.192e9),
    "limits wider than the machine": ("0::/\n", {"memory.max": "99000000000", "memory.current": "5"}, 8.192e9),
}


@pytest.mark.parametrize("name", MACHINES)
def test_room_is_what_machine_and_cgroups_leave(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, figures, left = MACHINES[name]
    system(tmp_path, monkeypatch, groups, figures)
    left = 8e9 * 1.024 if left == 8.192e9 else left
    assert room.limit() == pytest.approx(1e9 + left)
    ours = str(tmp_path / "groups/memory/a/memory.oom_control")
    assert room.kills() == {"machine": 6} | ({ours: 4} if name == "version 1" else {})


@linux
def test_this_machine_has_room() -> None:
    assert room.resident() > 50 * MB
    assert room.resident() < room.limit() < 1e14


def test_a_system_that_says_nothing_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PROC", tmp_path)
    assert room.limit() == math.inf
    assert not mark.killed(tmp_path)


PROBED = """
import torch
from danlu import room
from danlu.train import probe
before, kept = room.resident(), torch.ones(10_000_000)  # 40 MB that the child holds too
measured = probe.peak(lambda: (torch.ones(50_000_000), torch.ones(5_000_000)))
print(measured - before, room.resident() - before)
"""


@linux
def test_a_probe_measures_the_peak_of_a_child() -> None:
    """In a process of its own: another test may have left memory that the C library kept, which a child finds again."""
    done = subprocess.run([sys.executable, "-c", PROBED], capture_output=True, text=True, check=True)
    grown, kept = (float(figure) / MB for figure in done.stdout.split())
    assert grown == pytest.approx(40 + 200 + 20, rel=0.15)
    assert kept < 60


@linux
def test_what_a_probe_says_when_its_child_does_not_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_PATIENCE", 0.2)
    assert probe.peak(lambda: os.kill(os.getpid(), signal.SIGKILL)) == math.inf  # as the kernel does
    assert probe.peak(lambda: torch.empty(2**60)) == math.inf
    assert probe.peak(lambda: 1 / 0) is None
    assert probe.peak(lambda: torch.ones(2) @ torch.ones(3)) is None
    assert probe.peak(lambda: time.sleep(60)) is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_work_has_freed_is_given_back() -> None:
    """Small blocks between others that stay: glibc keeps what is free, until it is asked."""
    blocks = [bytearray(64_000) for _ in range(4_000)]  # below what glibc asks the system for, one by one
    held = room.resident()
    kept = blocks[::200]
    del blocks
    room.give_back()
    assert room.resident() < held - 150e6
    assert len(kept) == 20
