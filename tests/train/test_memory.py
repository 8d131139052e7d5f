"""The forecast of memory against what a training in a process of its own really held."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured through /proc")

SHAPES: dict[str, dict[str, Any]] = {
    "small, sgd": {"depth": 2, "precision": "fp32", "attention": "sdpa", "optimizer": "sgd", "batch_tokens": 4096},
    "scores and dropout": {
        "precision": "fp32", "attention": "written", "optimizer": "adamw", "dropout": 0.1, "batch_tokens": 4096,
    },
    "bf16, muon": {"precision": "bf16", "attention": "written", "optimizer": "muon", "batch_tokens": 2048},
    "bf16, many rows, dropout": {
        "precision": "bf16", "attention": "sdpa", "optimizer": "muon", "dropout": 0.1, "batch_tokens": 8192,
    },
    "micro-batches and a large vocabulary": {
        "vocab": 32768, "precision": "bf16", "attention": "sdpa", "optimizer": "adamw", "batch_tokens": 8192,
        "accumulate": 4,
    },
}  # fmt: skip


@linux
@pytest.mark.parametrize("name", SHAPES)
def test_the_plan_is_within_15_percent_of_what_the_process_holds(name: str) -> None:
    asked = {"depth": 4, "vocab": 4096, "context": 256, "dropout": 0.0} | SHAPES[name]
    runs = [_started(what, json.dumps(asked)) for what in ("planned", "held")]
    planned, held = (float(run.communicate()[0]) for run in runs)
    assert 0.85 < planned / held < 1 / 0.85, f"{planned:.0f} MB forecast, {held:.0f} MB held"


def _started(what: str, asked: str) -> "subprocess.Popen[str]":
    """One process plans and another trains: neither sees what the other holds."""
    command = [sys.executable, "-m", "tests.train.measured", what, asked]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
