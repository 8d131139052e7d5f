"""Trainings killed at 312 moments, or at PROVE_POINTS (make prove-long), end as those that nobody killed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disk import CALLS
from tests.faults.works import WORKS

POINTS = int(os.environ.get("PROVE_POINTS", 312))
ROOT = Path(__file__).resolve().parents[2]
DEEP = ("gpt", "encoder")  # which are killed most often
LOOP = {"micro-batch", "evaluation", "step"}


def killed(kind: str, points: int, *more: str) -> dict[str, Any]:
    """The report of a fork server that kills the trainings of one kind."""
    command = [sys.executable, "-m", "tests.faults.kills", kind, "--points", str(points), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    print(f"{kind}: {sum(report['kinds'].values())} points, {report['nested']} nested, {report['seconds']} s")
    return report


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORKS)
def test_killed_anywhere_is_as_if_never(kind: str) -> None:
    """Every optimizer, precision and accumulation; every kind of event."""
    points = POINTS // (3 if kind in DEEP else 12)
    report = killed(kind, points)
    assert report["failures"] == []
    assert sum(report["kinds"].values()) == points
    assert set(report["kinds"]) == set(CALLS) | LOOP or (kind not in DEEP and report["kinds"]["micro-batch"])
    assert report["nested"] >= points // 6


@pytest.mark.slow
def test_a_save_in_place_is_caught() -> None:
    """The negative control: the harness sees what it is there for."""
    points = POINTS // 10
    report = killed("gpt", points, "--in-place")
    assert len(report["failures"]) >= points // 4, report
