"""How many cores there are, and who else uses them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from danlu import cores, room

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and cgroups are Linux's")


@linux
def test_the_smallest_quota_of_the_cgroups_counts(tmp_path: Path, monkeypatch: Any) -> None:
    inner = tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("1:cpu:/old\n0::/outer/inner\n")
    monkeypatch.setattr(room, "_PROC", tmp_path)
    monkeypatch.setattr(room, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (inner / "cpu.max").write_text("max 100000\n")
    assert cores.usable() == 8
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    assert cores.usable() == 1.5


@linux
def test_a_busy_process_is_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(cores, "_LEAST_SECONDS", 0.0)
    busy = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        monkeypatch.setattr(cores, "_ticks", lambda ticks=cores._ticks: _only(busy.pid, ticks()))
        watch, deadline = cores.Watch(), time.monotonic() + 20
        while (found := watch.neighbour()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found is not None
        assert found.pid == busy.pid
        assert "python" in found.name
        assert 0.25 <= found.cores < 2.0
    finally:
        busy.kill()
        busy.wait()


def _only(pid: int, ticks: dict[int, int]) -> dict[int, int]:
    """The machine may be busy with others."""
    return {each: used for each, used in ticks.items() if each in (pid, os.getpid())}


def test_an_idle_process_and_this_one_are_no_neighbours(monkeypatch: Any) -> None:
    monkeypatch.setattr(cores, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(cores, "_ticks", iter([{1: 5, os.getpid(): 5}, {1: 5, os.getpid(): 10**9}]).__next__)
    assert cores.Watch().neighbour() is None
