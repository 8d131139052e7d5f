"""danlu starts at once: help and lists load nothing heavy."""

import os
import subprocess
import sys

import pytest

from tests.check.tree import ROOT, modules

HEAVY = ("torch", "daft", "transformers", "fastapi", "tokenizers", "pyarrow", "pandas")
LIGHT = ("recipe", "config", "graph", "files", "artifact", "errors", "messages", "cli", "report", "runs", "forecast")
_LOADED = f"print(*[name for name in {HEAVY} if name in sys.modules])"


def _last_line(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def _cpu_seconds(*command: str) -> float:
    """Processor time of a command and its children."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell a child's processor time")
def test_help_takes_under_150_ms() -> None:
    assert min(_cpu_seconds(sys.executable, "-m", "danlu", "--help") for _ in range(5)) < 0.150


def test_importing_danlu_loads_nothing_heavy() -> None:
    assert _last_line(f"import danlu\n{_LOADED}") == ""


@pytest.mark.parametrize("what", ["tasks", "models"])
def test_listing_loads_nothing_heavy(what: str) -> None:
    assert _last_line(f"from danlu.cli import main\nassert main(['list', '{what}']) == 0\n{_LOADED}") == ""


def test_the_way_to_nothing_changed_loads_nothing_heavy() -> None:
    stages = [module.name for module in modules() if module.name.startswith("stages.")]
    names = ", ".join(f"danlu.{name}" for name in (*LIGHT, *stages))
    assert _last_line(f"import {names}\n{_LOADED}") == ""
