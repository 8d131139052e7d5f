"""A stage in a process of its own: the same folders, the same errors, and gone when its parent is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from danlu import apart
from danlu.artifact import Lineage
from danlu.errors import Problems, UserError
from danlu.graph import Life, Silent
from danlu.recipe import load_recipe
from danlu.stages import prepare
from tests.tiny_life import project

pytestmark = pytest.mark.skipif(not apart.supported(), reason="processes are copied on Linux alone")


class Heard(Silent):
    """A view that remembers."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []

    def line(self, line: str) -> None:
        self.words.append(("line", line))

    def progress(self, done: float, total: float, note: str) -> None:
        self.words.append(("progress", done, total, note))


def called(stage: Any) -> Any:
    """The context after a stage has run apart."""
    context: Any = SimpleNamespace(view=Heard(), output_hash="", facts={})
    apart.run(stage, context, lambda: None)
    return context


def test_a_process_that_may_have_computed_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of OpenMP are not copied with it, and their team would be waited for without end."""
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert not apart.possible()
    monkeypatch.delitem(sys.modules, "torch")
    assert apart.possible()


def test_what_it_says_and_finds_comes_back() -> None:
    def stage(context: Any) -> None:
        context.view.line("a line")
        context.view.progress(1, 1, "done")
        context.output_hash, context.facts = "abc", {"rows": 3, "process": os.getpid()}

    context = called(stage)
    assert context.view.words == [("line", "a line"), ("progress", 1, 1, "done")]
    assert (context.output_hash, context.facts["rows"]) == ("abc", 3)
    assert context.facts["process"] != os.getpid()


def test_much_progress_is_told_seldom() -> None:
    def stage(context: Any) -> None:
        for done in range(100_000):
            context.view.progress(done, 100_000, "reading")

    assert 1 <= len(called(stage).view.words) < 200


def test_a_problem_comes_back_as_it_is() -> None:
    def raising(problem: Exception) -> Any:
        def stage(context: Any) -> None:
            raise problem

        return stage

    told = UserError("E202", where="recipe.toml:3", evidence=["a row"], path="nowhere")
    told.speak_of("finetune")
    for problem in (told, Problems([told, UserError("E216")])):
        with pytest.raises(type(problem)) as found:
            called(raising(problem))
        assert found.value.render() == problem.render()
        assert found.value.exit == problem.exit
    with pytest.raises(OSError, match="full") as full:
        called(raising(OSError(28, "full")))
    assert full.value.errno == 28
    assert "raise problem" in full.value.__notes__[0]


def test_a_mistake_says_what_it_was() -> None:
    class Local(Exception):
        pass

    def stage(context: Any) -> None:
        raise Local("of this function")

    with pytest.raises(Exception, match="of this function") as found:
        called(stage)
    assert type(found.value).__name__ == "Local"
    assert "raise Local" in found.value.__notes__[0]


def test_what_cannot_be_sent_says_what_it_was() -> None:
    def stage(context: Any) -> None:
        raise UserError("E202", path=lambda: "not to be sent")

    with pytest.raises(Exception, match="E202") as found:
        called(stage)
    assert type(found.value).__name__ == "UserError"


def test_killed_from_outside() -> None:
    def stage(context: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="SIGKILL") as found:
        called(stage)
    assert (found.value.code, found.value.exit) == ("E408", 5)


def test_what_is_raised_meanwhile_ends_it() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        apart.run(lambda context: time.sleep(60), SimpleNamespace(view=Heard()), interrupted)  # type: ignore[arg-type]
    assert time.monotonic() - started < 10


_WAITING = """
import os, sys, time
from types import SimpleNamespace
from danlu import apart

def stage(context):
    print(os.getpid(), flush=True)
    time.sleep(60)

apart.run(stage, SimpleNamespace(view=None, output_hash="", facts={}), lambda: None)
"""


def test_it_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITING], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        until = time.monotonic() + 10
        while _runs(worker) and time.monotonic() < until:
            time.sleep(0.02)
        assert not _runs(worker)


def _runs(process: int) -> bool:
    """Whether a process is there, and no zombie that only waits to be counted."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


_LOADED = """
import sys
from danlu.cli import main
code = main(sys.argv[1:])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"daft", "torch"}))
sys.exit(code)
"""


def test_a_training_does_not_hold_what_cleaned_its_rows(tmp_path: Path) -> None:
    recipe = project(tmp_path / "tiny")
    Life(load_recipe(recipe.parent / "recipe.toml", ["system.runs=here"])).run(Silent(), "encode")
    command = [sys.executable, "-c", _LOADED, "run", recipe.name, "--to", "pretrain"]
    ended = subprocess.run(command, cwd=recipe.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "['torch']"
    for stage in ("prepare", "encode"):
        here, there = (
            Lineage.read(next((recipe.parent / runs / "store").glob(f"{stage}-*"))) for runs in ("here", "runs")
        )
        assert (here.output_hash, here.key, here.facts) == (there.output_hash, there.key, there.facts)


def test_a_stage_is_recorded_with_its_own_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and not with what its process does meanwhile."""
    seconds = apart.run(lambda context: time.sleep(0.2), SimpleNamespace(output_hash="", facts={}), _slowly)  # type: ignore[arg-type]
    assert 0.2 <= seconds < 0.9
    work = prepare.run
    monkeypatch.setattr(prepare, "run", lambda context: (_slowly(), work(context)))
    Life(load_recipe(project(tmp_path / "tiny"))).run(Silent(), "prepare")
    (made,) = (tmp_path / "tiny" / "runs" / "store").glob("prepare-*")
    assert 1.0 <= Lineage.read(made).made["seconds"] < 1.9


def _slowly() -> None:
    time.sleep(1.0)


def test_what_is_wrong_with_the_rows_is_said_once(tmp_path: Path) -> None:
    recipe = project(tmp_path / "tiny")
    command = [sys.executable, "-m", "danlu", "run", recipe.name, "--json", "data.path=empty.jsonl"]
    (recipe.parent / "empty.jsonl").write_text('{"text": ""}\n{"text": " "}\n')
    ended = subprocess.run(command, cwd=recipe.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert [error["code"] for error in json.loads(ended.stdout)["errors"]] == ["E204"]
    assert "Traceback" not in ended.stderr
