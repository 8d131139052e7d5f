"""SIGTERM and Ctrl-C end the real command within ten seconds, with exit code 75, and the same command goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import stopping
from danlu.train import checkpoint
from tests.faults import cold
from tests.faults.works import Watching, Work, outcome
from tests.tiny_life import project

pytestmark = pytest.mark.slow
STAGES = {"prepare": 60, "encode": 60, "training": 0.3, "evaluate": 60, "compress": 60}  # seconds in each place
ROOT = Path(__file__).resolve().parents[2]


def started(recipe: Path, place: str, seconds: float) -> subprocess.Popen[bytes]:
    """The command, once it has come to the place that is slow."""
    for name in ("there", "calls"):
        (recipe.parent / name).unlink(missing_ok=True)
    line = [sys.executable, "-m", "tests.faults.slow", place, str(seconds), "run", str(recipe)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DANLU_LANG": "en"}
    with open(recipe.parent / "run.log", "wb") as log:
        # A shell's background jobs ignore Ctrl-C, and hand that on to what they start.
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log, preexec_fn=heard)
    limit = time.monotonic() + 60
    while not (recipe.parent / "there").exists():
        assert process.poll() is None and time.monotonic() < limit, cold.said(recipe)
        time.sleep(0.01)
    return process


def sent(process: subprocess.Popen[bytes], *numbers: signal.Signals) -> tuple[int, float]:
    """Send signals a tenth of a second apart; the exit code, and the seconds since the last one."""
    for number in numbers:
        time.sleep(0.1)
        process.send_signal(number)
    began = time.monotonic()
    try:
        return process.wait(20), time.monotonic() - began
    finally:
        process.kill()


def newest(recipe: Path) -> checkpoint.Checkpoint | None:
    partial = next((recipe.parent / "runs" / "store").glob("pretrain-*.partial"))
    found, damaged = checkpoint.newest(partial / "checkpoints")
    assert damaged == []
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    recipe = project(tmp_path_factory.mktemp("straight") / "tiny", cold.LIFE)
    cold.finish(recipe)
    return cold.outcome(recipe)


def test_ten_seconds_are_promised() -> None:
    assert stopping.GRACE + stopping.AT_ONCE < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_stopped_in_every_stage(number: signal.Signals, straight: dict[str, Any], tmp_path: Path) -> None:
    """One life, stopped in each of its stages; a step is of several micro-batches, each slow."""
    recipe = project(tmp_path / "tiny", cold.LIFE.replace('precision = "fp32"', 'precision = "fp32"\naccumulate = 4'))
    for place, seconds in STAGES.items():
        code, took = sent(started(recipe, place, seconds), number)
        assert (code, took < 5) == (75, True), (place, took, cold.said(recipe))
        assert "the same command goes on" in cold.said(recipe)
        if place == "training":
            saved, logged = newest(recipe), cold.said(recipe)
            assert saved is not None and f"SIG{number.name[3:]}" in logged
    cold.finish(recipe)
    found = cold.outcome(recipe)
    assert found["damage"] == [] and found["runs"] == 1
    assert [name.split("-")[0] for name in found["folders"]] == [n.split("-")[0] for n in straight["folders"]]


@pytest.mark.parametrize(
    ("place", "least"),
    [("training", stopping.GRACE - 1), pytest.param("duplicates", 0.0, marks=pytest.mark.long)],
)
def test_stopped_far_from_python(place: str, least: float, straight: dict[str, Any], tmp_path: Path) -> None:
    """Where no handler can be called the clock ends it; twice, at once. What cleans rows is killed without waiting."""
    recipe = project(tmp_path / "tiny", cold.LIFE)
    code, took = sent(started(recipe, place, 0), signal.SIGTERM)
    assert code == 75 and least < took < 10, took
    code, took = sent(started(recipe, place, 0), signal.SIGINT, signal.SIGINT)
    assert code == 75 and took < 2, took
    cold.finish(recipe)
    assert cold.outcome(recipe) == straight


def test_a_second_signal_while_all_ends_prints_no_traceback() -> None:
    """It may close the socket before the listening thread has been waited for."""
    said: list[str] = []
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        stopping._listen(ours, lambda: said.append("farewell"))
    assert said == []


@pytest.mark.long
def test_stopped_in_a_save_it_is_saved_once(straight: dict[str, Any], tmp_path: Path) -> None:
    recipe = project(tmp_path / "tiny", cold.LIFE)
    code, took = sent(started(recipe, "save", 1.5), signal.SIGTERM)
    assert code == 75 and took < 5, cold.said(recipe)
    assert (recipe.parent / "calls").read_text() == "call\n"
    saved = newest(recipe)
    assert saved is not None and saved.position.step == 1
    cold.finish(recipe)
    assert cold.outcome(recipe) == straight


def test_stopped_twice_in_a_save(straight: dict[str, Any], tmp_path: Path) -> None:
    """At once, and what was saved before is whole."""
    recipe = project(tmp_path / "tiny", cold.LIFE)
    code, _ = sent(started(recipe, "training", 0.1), signal.SIGTERM)
    before = newest(recipe)
    assert code == 75 and before is not None
    code, took = sent(started(recipe, "write", 60), signal.SIGTERM, signal.SIGTERM)
    assert code == 75 and took < 2, cold.said(recipe)
    after = newest(recipe)
    assert after is not None and after.position.step == before.position.step
    cold.finish(recipe)
    assert cold.outcome(recipe) == straight


@pytest.mark.long
def test_a_process_that_slept_goes_on(straight: dict[str, Any], tmp_path: Path) -> None:
    """A laptop that was closed: the process stands still, and nobody gives up waiting."""
    recipe = project(tmp_path / "tiny", cold.LIFE)
    process = started(recipe, "training", 0.01)
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0, cold.said(recipe)
    assert cold.outcome(recipe) == straight


def test_nobody_reads_what_it_says(straight: dict[str, Any], tmp_path: Path) -> None:
    """danlu run ... | head -1"""
    recipe = project(tmp_path / "tiny", cold.LIFE)
    line = f'"{sys.executable}" -m danlu run "{recipe}" 2>&1 | head -1'
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DANLU_LANG": "en"}
    shell = ["bash", "-o", "pipefail", "-c", line]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "▸ prepare: runs for the first time\n"
    assert done.returncode == 0, done.stderr
    assert cold.outcome(recipe) == straight


def test_clocks_that_jump_and_dates_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are ordered by step, time is measured by a clock that only goes forward."""
    threads = torch.get_num_threads()
    work = Work("gpt", steps=8)
    asked, outs = work.request(tmp_path / "data"), [tmp_path / name for name in ("straight", "jumped")]
    for out in outs:
        out.mkdir()
        work.plan.write(out)
    wanted = outcome(cold_fit(work, asked, outs[0], Watching()), outs[0])
    jumps = iter([1e9, -1e9, 0.0] * 10_000)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    view = Watching()
    view.progress = _dying(5)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cold_fit(work, asked, outs[1], view)
    for number, path in enumerate(sorted(outs[1].rglob("*"))):
        os.utime(path, (2e9 - number * 1e7, 2e9 - number * 1e7))  # the newest step has the oldest date
    assert outcome(cold_fit(work, asked, outs[1], Watching()), outs[1]) == wanted
    torch.set_num_threads(threads)


def cold_fit(work: Work, asked: Any, out: Path, view: Watching) -> Any:
    from danlu.train.session import fit

    return fit(asked, work.network(), out, 9, view)


def _dying(at: int) -> Any:
    def progress(done: float, total: float, note: str) -> None:
        if done >= at:
            raise KeyboardInterrupt

    return progress


def test_the_log_of_a_stopped_training_has_no_gap(straight: dict[str, Any]) -> None:
    for name, log in straight["log"].items():
        steps = [entry["step"] for entry in log if "loss" in entry]
        assert steps == list(range(1, len(steps) + 1)), json.dumps(name)
