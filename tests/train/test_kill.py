"""A real process, asked to stop, then killed, then run again: the same weights as without."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from danlu import files
from danlu.graph import Silent
from tests.tiny_life import RECIPE, life, no_clock, project

STEPS = 120
LONG = RECIPE.replace("steps = 6", f"steps = {STEPS}").replace("evaluate_every = 2", "evaluate_every = 30")
LONG = LONG.replace("save_every = 2", "save_every = 10")
LONG = LONG.replace("[pretrain]", "[pretrain]\ndropout = 0.1\naverage = 0.9")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums over other numbers of threads end in other bits."""
    threads = torch.get_num_threads()
    no_clock(monkeypatch)
    yield
    torch.set_num_threads(threads)


def steps(log: Path) -> list[int]:
    """The steps logged so far; the last line may be half written."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [entry["step"] for entry in map(json.loads, filter(lambda x: x.endswith("\n"), lines)) if "loss" in entry]


def interrupted(recipe: Path, partial: Path, at: int, number: signal.Signals) -> tuple[int, list[int]]:
    """Start `danlu run`, send it a signal once it has logged step `at`; its exit code, and the steps logged."""
    command = [sys.executable, "-m", "danlu", "run", str(recipe), "--to", "pretrain", "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=recipe.parent, env=environment, stderr=subprocess.PIPE) as process:
        limit = time.monotonic() + 60
        while max(steps(partial / "metrics.jsonl"), default=0) < at:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < limit
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate()
        return process.returncode, steps(partial / "metrics.jsonl")


@pytest.mark.parametrize("task", ["language_modeling", pytest.param("span_denoising", marks=pytest.mark.long)])
def test_stopped_and_killed_and_run_again(task: str, tmp_path: Path) -> None:
    long = LONG.replace("language_modeling", task)
    straight = life(project(tmp_path / "straight", long)).run(Silent(), "pretrain").folders["pretrain"]
    recipe = project(tmp_path / "killed", long)
    store = recipe.parent / "runs" / "store"
    for name in ("prepare", "encode"):
        life(recipe).run(Silent(), name)
    partial = store / f"{straight.name}.partial"
    partial.mkdir()
    shutil.copy(
        straight / "plan.toml", partial
    )  # what is measured may differ from run to run; from there on nothing may

    code, logged = interrupted(recipe, partial, 10, signal.SIGTERM)
    assert code == 75
    assert 10 <= logged[-1] < STEPS
    assert not (store / straight.name).exists()
    code, later = interrupted(recipe, partial, logged[-1] + 15, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert later[-1] < STEPS, "it ended before it could be killed"

    finished = life(recipe).run(Silent(), "pretrain").folders["pretrain"]
    assert finished.name == straight.name
    assert files.sha256(finished / "model.safetensors") == files.sha256(straight / "model.safetensors")
    assert steps(finished / "metrics.jsonl") == list(range(1, STEPS + 1))
    assert files.damage(finished) == []
