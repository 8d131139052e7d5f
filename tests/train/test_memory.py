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
# Of one large micro-batch through torch's fused attention the C library keeps more than is forecast: up to a quarter.
KEPT = {"small, sgd": 0.7, "bf16, many rows, dropout": 0.75}


@linux
@pytest.mark.parametrize("name", SHAPES)
def test_the_plan_is_within_15_percent_of_what_the_process_holds(name: str) -> None:
    asked = {"depth": 4, "vocab": 4096, "context": 256, "dropout": 0.0} | SHAPES[name]
    command = [sys.executable, "-m", "tests.train.measured", json.dumps(asked)]
    found = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True)
    forecast, measured = json.loads(found.stdout)
    least = KEPT.get(name, 0.85)
    assert least < forecast / measured < 1.15, f"{forecast:.0f} MB forecast, {measured:.0f} MB measured"
