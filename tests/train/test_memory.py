"""The forecast of memory against what a training in a process of its own really held."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from danlu import ranks

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
    "a mean of the weights": {
        "precision": "fp32", "attention": "sdpa", "optimizer": "adamw", "batch_tokens": 1024, "average": 0.99,
    },
    "micro-batches and a large vocabulary": {
        "vocab": 32768, "precision": "bf16", "attention": "sdpa", "optimizer": "adamw", "batch_tokens": 8192,
        "accumulate": 4,
    },
}  # fmt: skip

FIRST = ("bf16, muon", "a mean of the weights")  # the others: make prove-long


@linux
def test_what_follows_from_the_code_counts_both_sides() -> None:
    """Before any step is tried; activations are most of it."""
    told = json.dumps({
        "arch": "t5", "task": "span_denoising", "depth": 3, "vocab": 2048, "context": 256, "dropout": 0.0,
        "precision": "fp32", "attention": "written", "optimizer": "adamw", "batch_tokens": 4096,
    })  # fmt: skip
    forecast, held = (float(_started(what, told).communicate()[0]) for what in ("forecast", "held"))
    assert 0.85 < forecast / held < 1 / 0.85, f"{forecast:.0f} MB forecast, {held:.0f} MB held"


@linux
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name not in FIRST)) for name in SHAPES]
)
def test_the_plan_is_within_15_percent_of_what_the_process_holds(name: str) -> None:
    asked = {"depth": 4, "vocab": 4096, "context": 256, "dropout": 0.0} | SHAPES[name]
    runs = [_started(what, json.dumps(asked)) for what in ("planned", "held")]
    planned, held = (float(run.communicate()[0]) for run in runs)
    assert 0.85 < planned / held < 1 / 0.85, f"{planned:.0f} MB forecast, {held:.0f} MB held"


@linux
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("count", "parallel"),
    [(2, "fsdp"), *(pytest.param(4, parallel, marks=pytest.mark.long) for parallel in ("fsdp", "tensor"))],
)
def test_so_it_is_on_ranks_that_share_the_weights(count: int, parallel: str, tmp_path: Path) -> None:
    """Few rows, so that weights are what there is to be held; a block that is gathered leaves more than itself."""
    asked = {"depth": 8, "vocab": 2048, "context": 32, "batch_tokens": 128, "precision": "fp32", "optimizer": "adamw",
             "attention": "sdpa", "dropout": 0.0, "save_every": 2}  # fmt: skip
    port, told = ranks.free_port(), json.dumps(asked | {"folder": str(tmp_path), "parallel": parallel})
    runs = [_started("shared", told, ranks.environment(rank, count, port)) for rank in range(count)]
    said = [run.communicate()[0].split() for run in runs]
    planned, held = float(said[0][0]), max(float(each[1]) for each in said)
    # Beside other work a rank that waits for the others holds more than when all run together: within a fifth.
    assert 0.8 < planned / held < 1 / 0.8, f"{planned:.0f} MB forecast, {held:.0f} MB held"


def _started(what: str, asked: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """One process plans and another trains: neither sees what the other holds."""
    command = [sys.executable, "-m", "tests.train.measured", what, asked]
    alone = {"OMP_NUM_THREADS": "1"} | (environment or {})
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | alone, stdout=subprocess.PIPE, text=True)
