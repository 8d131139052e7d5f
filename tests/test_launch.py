"""A run on several ranks as users start it: by `system.devices`, or by torchrun; killed, stopped, and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from danlu import ranks
from danlu.graph import Silent
from danlu.ranks import free_port
from tests.tiny_life import RECIPE, life, project
from tests.train import ranked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks through /proc")
STEPS = 150
LONG = RECIPE.replace("steps = 6", f"steps = {STEPS}").replace("evaluate_every = 2", "evaluate_every = 50")
LONG = LONG.replace("save_every = 2", "save_every = 10").replace("[system]", "[system]\ndevices = 2")
DANLU = [sys.executable, "-m", "danlu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A project whose data are ready to train on."""
    path = project(tmp_path, LONG)
    life(path).run(Silent(), "encode")
    return path


def start(recipe: Path, *command: str, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": ""}
    return subprocess.Popen(
        [*command, "run", str(recipe), "--to", "pretrain", *options], cwd=recipe.parent, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def steps(recipe: Path) -> list[int]:
    """The steps logged so far."""
    logs = list((recipe.parent / "runs" / "store").glob("pretrain-*/metrics.jsonl"))
    lines = logs[0].read_text().splitlines(keepends=True) if logs else []
    return [entry["step"] for entry in map(json.loads, filter(lambda x: x.endswith("\n"), lines)) if "loss" in entry]


def saved(recipe: Path) -> bool:
    """Whether a checkpoint stands there, whole: it is written beside the steps, which may be ahead of it."""
    return any((recipe.parent / "runs").glob("**/checkpoints/step-" + 7 * "[0-9]"))


def wait(until: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 60
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.005)


def finished(recipe: Path, *command: str, options: Sequence[str] = ()) -> str:
    process = start(recipe, *command, options=options)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert steps(recipe) == list(range(1, STEPS + 1))
    return said


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_rank_ends_all_with_one_line_and_the_same_command_goes_on(recipe: Path, victim: int) -> None:
    process = start(recipe, *DANLU)
    wait(lambda: len(steps(recipe)) > 15 and saved(recipe), process)
    pids = children(process.pid)
    assert len(pids) == 2
    os.kill(pids[victim], signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - killed < 30
    assert process.returncode == 75
    assert said.count("was killed (SIGKILL)") == 1
    assert said.strip().splitlines()[-1].startswith(f"rank {victim} of 2 was killed")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert max(steps(recipe)) < STEPS, "it ended before it could be killed"
    assert "goes on from step" in finished(recipe, *DANLU)


def answered(verb: str, recipe: Path, *words: str, typed: str = "") -> str:
    """What a command on the recipe's model prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    ended = subprocess.run(
        [*DANLU, verb, str(recipe), *words], input=typed, env=environment, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


SHARED = {"fsdp": ["system.parallel=fsdp"], "tensor": ["system.parallel=tensor", "model.heads=2"]}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("parallel", ["fsdp", pytest.param("tensor", marks=pytest.mark.long)])
def test_shared_weights_are_killed_go_on_and_open_as_any_model(recipe: Path, parallel: str) -> None:
    process = start(recipe, *DANLU, options=SHARED[parallel])
    wait(lambda: len(steps(recipe)) > 15 and saved(recipe), process)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert max(steps(recipe)) < STEPS, "it ended before it could be killed"
    assert "goes on from step" in finished(recipe, *DANLU, options=SHARED[parallel])
    plan = next((recipe.parent / "runs" / "store").glob("pretrain-*/plan.toml")).read_text()
    assert f'parallel = "{parallel}"' in plan and "ranks = 2" in plan
    assert answered("predict", recipe, "The old king").strip()
    silent, talked = (answered("chat", recipe, typed=typed).count("\n") for typed in ("", "The old king\n"))
    assert talked > silent


@pytest.mark.slow
def test_asked_to_stop_all_save_and_the_same_command_goes_on(recipe: Path) -> None:
    process = start(recipe, *DANLU)
    wait(lambda: len(steps(recipe)) > 3, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    last = max(steps(recipe))
    assert process.returncode == 75
    assert said.count("asked to stop (SIGTERM): saved") == 1
    assert last < STEPS
    said = finished(recipe, *DANLU)
    assert f"goes on from step {last} of" in said


@pytest.mark.slow
def test_the_ranks_end_when_their_launcher_is_killed(recipe: Path) -> None:
    process = start(recipe, *DANLU)
    wait(lambda: len(steps(recipe)) > 3, process)
    pids = children(process.pid)
    process.kill()
    process.communicate()
    limit = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert max(steps(recipe)) < STEPS


@pytest.mark.slow
def test_torchrun_starts_the_ranks_and_starts_them_again(recipe: Path) -> None:
    """One of them is killed: torchrun ends the rest, and the next ones go on from the last checkpoint."""
    meeting = ["--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    process = start(recipe, *TORCHRUN, *meeting, "--max-restarts", "1", "-m", "danlu")
    wait(lambda: len(steps(recipe)) > 15 and saved(recipe), process)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert steps(recipe) == list(range(1, STEPS + 1))
    assert "goes on from step" in said
    assert said.count(f"step {STEPS}/{STEPS}") == 1


def test_a_rank_that_fails_says_why_and_gives_its_exit_code(tmp_path: Path) -> None:
    recipe = project(tmp_path, LONG)
    process = start(recipe, *DANLU)
    (tmp_path / "texts" / "rows.jsonl").write_text("{not json\n")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said.count("error[") == 1


DIVERGES = ["train.lr=1e9", "train.clip=0.0", "train.optimizer=sgd", "train.precision=fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_all_ranks_find_is_said_once_with_its_exit_code(recipe: Path, form: str) -> None:
    process = start(recipe, *DANLU, options=[*DIVERGES, *(["--json"] if form == "json" else [])])
    out, said = process.communicate(timeout=100)
    assert process.returncode == 6, said
    assert (out if form == "json" else said).count("error[E501]") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_fault_in_the_recipe_is_said_once_under_torchrun(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("steps =", "stepz ="))
    meeting = ["--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    process = start(recipe, *TORCHRUN, *meeting, "-m", "danlu")
    _, said = process.communicate(timeout=100)
    assert process.returncode != 0
    assert said.count("stepz") == 1, said


SPEAKERS = {(0, 1, 2): [0], (0,): [0], (2,): [2]}


@pytest.mark.parametrize("failing", SPEAKERS)
def test_one_rank_speaks_for_those_that_failed(failing: tuple[int, ...], tmp_path: Path) -> None:
    def work() -> list[str]:
        said: list[str] = []
        ranks.join()
        if ranks.rank() in failing:
            ranks.say_once("E501", lambda: said.append("diverged"))
        torch.distributed.barrier()
        ranks.leave()
        return said

    found = ranked.ranks(3, tmp_path, work)
    assert [rank for rank, said in enumerate(found) if said] == SPEAKERS[failing]
    assert sum(map(len, found)) == 1


def test_ranks_that_wait_for_rank_0_end_when_it_fails(tmp_path: Path) -> None:
    def work() -> bool:
        ranks.join()
        if ranks.rank() == 0:
            started = time.monotonic()
            ranks.say_once("E201", lambda: None)
            return time.monotonic() - started < ranks._TURN
        with pytest.raises(ranks.RankLost):
            ranks.hear()
        return True

    assert ranked.ranks(3, tmp_path, work) == [True] * 3


def test_of_ranks_that_fail_without_the_first_one_speaks(tmp_path: Path) -> None:
    def work() -> list[str]:
        said: list[str] = []
        ranks.join()
        if ranks.rank():
            ranks.say_once("E404", lambda: said.append("memory"))
        torch.distributed.barrier()
        ranks.leave()
        return said

    assert sum(map(len, ranked.ranks(3, tmp_path, work))) == 1


def test_nothing_to_train_starts_nobody(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu import cli, launch

    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("there is nothing to train"))
    assert cli.main(["run", str(recipe), "--to", "encode", "--quiet"]) == 0
