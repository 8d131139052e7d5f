"""Kill the real command at random moments, and run it again until it ends: `danlu run`, each time a new process.

A life of five stages and two trainings lives undisturbed first. Others are killed with SIGKILL: the moments are spread
evenly over the time that it took, each at random in its share, so that starting, preparing, training, saving,
evaluating and sealing are all met. Every second life is killed again while it goes on. What must be equal to the life
that nobody killed: every folder by name (a name is the hash of all that went in), the weights and the log of both
trainings, the figures, and that nothing else is left.

    python -m tests.faults.cold --kills N [--seed S]      prints one JSON object
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu import files
from danlu.randomness import stream
from tests.tiny_life import RECIPE, project

SOURCE = Path(__file__).resolve().parents[2] / "src"
STEPS = """steps = 40
dropout = 0.1
attention = "sdpa"
"""
LIFE = (
    RECIPE.replace("steps = 6\n", STEPS).replace("save_every = 2", "save_every = 1")
    + """
[finetune]
data = "texts"
task = "language_modeling"
steps = 20

[compress]
"""
)
AGAIN = 0.4  # share of a life within which one that goes on is killed again


def start(recipe: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """The command, as a user types it, of this checkout; what it says goes to run.log beside the recipe."""
    command = [sys.executable, "-m", "danlu", "run", recipe.name, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DANLU_LANG": "en", "PYTHONHASHSEED": "random"}
    environment["PYTHONPATH"] = str(SOURCE)
    with open(recipe.parent / "run.log", "wb") as log:
        return subprocess.Popen(command, cwd=recipe.parent, env=environment, stdout=log, stderr=log)


def killed(recipe: Path, after: float, *overrides: str) -> bool:
    """Start the command and kill it after so many seconds; False where it had ended before."""
    with start(recipe, *overrides) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"exit {process.returncode}: {said(recipe)}")
    return process.returncode != 0


def finish(recipe: Path, *overrides: str) -> float:
    """Run the command to its end; the seconds it took."""
    began = time.monotonic()
    with start(recipe, *overrides) as process:
        process.wait()
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}: {said(recipe)}")
    return time.monotonic() - began


def said(recipe: Path) -> str:
    return (recipe.parent / "run.log").read_text("utf-8", "replace")


def moment(recipe: Path) -> str:
    """What a command that was killed was doing, by what it said and what it left."""
    stages = [line[2:].split(":")[0] for line in said(recipe).splitlines() if line.startswith("▸ ")]
    if not stages:
        return "start-up"
    partial = next((recipe.parent / "runs" / "store").glob(f"{stages[-1]}-*.partial"), None)
    if partial and any(partial.glob("checkpoints/*.tmp")):
        return "saving"
    if partial and any(partial.glob("model.safetensors*")):
        return "sealing"
    return stages[-1]


def outcome(recipe: Path) -> dict[str, Any]:
    """All that two lives of one recipe have in common; what no clock decides."""
    runs = recipe.parent / "runs"
    folders = sorted(runs.glob("store/*"))
    return {
        "folders": [folder.name for folder in folders],
        "damage": [name for folder in folders for name in files.damage(folder)],
        "weights": {folder.name: files.sha256(folder / "model.safetensors") for folder in folders if _model(folder)},
        "log": {folder.name: log(folder / "metrics.jsonl") for folder in folders if folder.name.startswith(TRAININGS)},
        "figures": [files.sha256(folder / "metrics.json") for folder in runs.glob("store/evaluate-*")],
        "runs": len(list(runs.glob("*/run.json"))),
    }


TRAININGS = ("pretrain-", "finetune-")


def _model(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file()


def log(path: Path) -> list[dict[str, Any]]:
    """The log of a training without what a clock says."""
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [{name: value for name, value in entry.items() if name not in ("seconds", "waited")} for entry in entries]


@dataclass
class Report:
    kills: int = 0
    again: int = 0  # of them in a life that was going on from a kill
    moments: Counter[str] = field(default_factory=Counter)
    late: int = 0  # kills that came after the end
    seconds: float = 0.0  # of the shortest life that nobody killed
    failures: list[str] = field(default_factory=list)


def prove(room: Path, kills: int, seed: int) -> Report:
    """Kill lives `kills` times in all."""
    straight, report = project(room / "straight" / "tiny", LIFE), Report()
    report.seconds = finish(straight)
    wanted, random, lives = outcome(straight), stream(seed, "cold"), 0
    while report.kills < kills:
        recipe = project(room / f"life-{lives}" / "tiny", LIFE)
        share = (report.kills + random.random()) / kills
        chain = [share * report.seconds] + [random.random() * AGAIN * report.seconds] * (lives % 2)
        _live(recipe, chain[: kills - report.kills], report)
        found, lives = outcome(recipe), lives + 1
        different = [name for name in wanted if found[name] != wanted[name]]
        if different:
            report.failures.append(f"killed after {chain} s: differs in {different}")
    return report


def _live(recipe: Path, chain: list[float], report: Report) -> None:
    """A life that is killed at these moments, and then lives to its end."""
    for number, after in enumerate(chain):
        began = time.monotonic()
        if not killed(recipe, after):  # the machine is less busy than it was
            report.late += 1
            report.seconds = min(report.seconds, time.monotonic() - began) if not number else report.seconds
            return
        report.kills += 1
        report.again += number
        report.moments[moment(recipe)] += 1
    finish(recipe)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as room:
        report = prove(Path(room), asked.kills, asked.seed)
    print(json.dumps(vars(report) | {"total": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
