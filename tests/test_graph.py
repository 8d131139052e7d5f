"""What runs, why, and what stays: one tiny life, copied and changed in every way that matters."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu import files, runs
from danlu.artifact import Lineage
from danlu.errors import UserError
from danlu.graph import Life, Run, Silent
from danlu.graph import runs as recorded
from danlu.stages import pretrain
from tests.tiny_life import RECIPE, life, no_clock, project

STAGES = ["prepare", "encode", "pretrain", "evaluate"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that has run once; the clock stays out of all its plans."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        no_clock(patch)
        recipe = project(tmp_path_factory.mktemp("here") / "tiny")
        life(recipe).run(Silent())
        yield recipe
    torch.set_num_threads(threads)


@pytest.fixture
def recipe(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project in another place: whatever a key depends on, a path it is not."""
    shutil.copytree(finished.parent, tmp_path / "tiny", symlinks=True)
    return tmp_path / "tiny" / "recipe.toml"


def states(recipe: Path, *overrides: str) -> dict[str, tuple[str, list[str]]]:
    return {state.node.name: (state.status, state.why) for state in life(recipe, *overrides).states()}


def statuses(recipe: Path, *overrides: str) -> list[str]:
    return [status for status, _ in states(recipe, *overrides).values()]


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def store(recipe: Path, node: str) -> Path:
    """The one folder of a stage."""
    (folder,) = (p for p in (recipe.parent / "runs" / "store").glob(f"{node}-*") if p.suffix == "")
    return folder


# --- nothing changed ---


def test_a_second_run_does_nothing(recipe: Path) -> None:
    life(recipe)  # the copied files are hashed anew once
    list(life(recipe).states())
    before = snapshot(recipe.parent)
    run = life(recipe).run(Silent())
    assert (run.name, set(run.folders)) == ("tiny-1", set(STAGES))
    assert snapshot(recipe.parent) == before


def test_one_life_runs_twice(recipe: Path) -> None:
    again = life(recipe, "evaluate.samples=2")
    first, second = again.run(Silent()), again.run(Silent())
    assert (first.number, second.number, len(recorded(recipe.parent / "runs"))) == (2, 2, 2)
    assert first.folders == second.folders


COUNTED = """
import sys, time
from danlu.cli import main
code = main(["run", sys.argv[1], "--quiet"])
heavy = [name for name in ("torch", "daft", "transformers", "tokenizers", "pyarrow", "numpy") if name in sys.modules]
print(code, time.process_time(), *heavy)
"""


def test_nothing_changed_takes_no_time_and_loads_nothing_heavy(recipe: Path) -> None:
    command = [sys.executable, "-c", COUNTED, str(recipe)]
    said = ""
    for _ in range(2):  # the first hashes the copied files
        done = subprocess.run(command, capture_output=True, text=True, cwd=recipe.parent, check=False)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()[-1]
    code, seconds, *heavy = said.split()
    assert (code, heavy) == ("0", [])
    assert float(seconds) < 1.0


# --- what a key depends on ---

NOTHING = ["cached"] * 4
CHANGES = {
    "system.threads=2": NOTHING,
    "system.partitions=3": NOTHING,
    "serve.port=1234": NOTHING,
    "serve.slots=3": NOTHING,
    "evaluate.samples=2": ["cached", "cached", "cached", "run"],
    "evaluate.ngram=3": ["cached", "cached", "cached", "run"],
    "train.lr=0.01": ["cached", "cached", "run", "waits"],
    "pretrain.lr=0.01": ["cached", "cached", "run", "waits"],
    "train.steps=7": ["cached", "cached", "run", "waits"],
    "train.sample=The": ["cached", "cached", "cached", "cached"],
    "seed=8": ["cached", "cached", "run", "waits"],
    "train.dropout=0.1": ["cached", "cached", "run", "waits"],
    "model.context=48": ["cached", "cached", "run", "waits"],
    "tokenizer.vocab_size=310": ["cached", "run", "waits", "waits"],
    "data.section=500": ["run", "waits", "waits", "waits"],
    "data.dedup.threshold=0.9": ["run", "waits", "waits", "waits"],
    "data.split.test=0.1": ["run", "waits", "waits", "waits"],
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reruns_what_depends_on_it(change: str, finished: Path) -> None:
    assert statuses(finished, change) == CHANGES[change]


def test_a_key_written_as_its_default_changes_nothing(finished: Path) -> None:
    assert (
        statuses(finished, "train.clip=1.0", "model.arch=gpt", 'data.path=["texts"]', "tokenizer.type=bpe") == NOTHING
    )


def test_the_place_and_the_name_of_files_do_not_matter(recipe: Path) -> None:
    texts = recipe.parent / "texts"
    (texts / "rows.jsonl").rename(texts / "lines.jsonl")
    texts.rename(recipe.parent / "elsewhere")
    os.utime(recipe.parent / "elsewhere" / "lines.jsonl", (1, 1))
    assert statuses(recipe, "data.path=elsewhere") == NOTHING


def test_the_runs_folder_does_not_matter(recipe: Path) -> None:
    (recipe.parent / "runs").rename(recipe.parent / "somewhere")
    assert statuses(recipe, "system.runs=somewhere") == NOTHING


def test_a_byte_of_the_data_matters(recipe: Path) -> None:
    path = recipe.parent / "texts" / "rows.jsonl"
    content, when = path.read_bytes(), path.stat()
    path.write_bytes(content.replace(b"lantern", b"Lantern", 1))
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns + 1))
    assert states(recipe)["prepare"] == ("run", ["files: +0 new, -0 gone, 1 changed"])
    path.write_bytes(content)
    (path.parent / "more.jsonl").write_text('{"text": "One more sentence about a king."}\n')
    assert states(recipe)["prepare"] == ("run", ["files: +1 new, -0 gone, 0 changed"])


def test_the_version_of_a_stage_matters(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pretrain.VERSION
    monkeypatch.setattr(pretrain, "VERSION", 99)
    found = states(finished)
    assert [status for status, _ in found.values()] == ["cached", "cached", "run", "waits"]
    assert found["pretrain"][1] == [f"the stage changed, version {before} → 99"]


def test_the_reasons_are_the_keys_that_differ(finished: Path) -> None:
    assert states(finished, "train.lr=0.01")["pretrain"][1] == ["train.lr 0.02 → 0.01"]
    why = states(finished, "seed=8", "model.heads=2", "train.warmup=0.1")["pretrain"][1]
    assert why == ["model.heads — → 2", "seed 7 → 8", "train.warmup 0.03 → 0.1"]
    assert states(finished, "data.split.test=0.1")["prepare"][1] == ["split.test 0.05 → 0.1"]
    assert states(finished, "data.section=500")["evaluate"][1] == ["runs after pretrain, encode"]


def test_the_same_output_ends_the_rerunning(recipe: Path) -> None:
    """Early cut-off: other settings, the same rows; nothing below is done again."""
    seen: list[tuple[str, str]] = []

    class View(Silent):
        def stage(self, node: str, note: str) -> None:
            seen.append((node, note))

    run = life(recipe, "data.section=500").run(View())
    assert seen == [("prepare", "section 4000 → 500")] + [(name, "unchanged") for name in STAGES[1:]]
    assert run.name == "tiny-2"
    assert runs.why(run) == {"prepare": ["section 4000 → 500"], "encode": [], "pretrain": [], "evaluate": []}


# --- damage, kills, two at once ---


def test_a_damaged_folder_is_named_and_made_anew(recipe: Path) -> None:
    folder = store(recipe, "pretrain")
    digest = files.sha256(folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    found = states(recipe)
    assert found["pretrain"] == ("run", ["damaged: model.safetensors"])
    run = life(recipe).run(Silent())
    assert files.damage(folder) == []
    assert files.sha256(folder / "model.safetensors") == digest
    assert run.name == "tiny-1"
    assert statuses(recipe) == NOTHING


def test_a_flipped_bit_is_found_before_it_is_learned_from(recipe: Path) -> None:
    columns = next(store(recipe, "encode").glob("columns/train/input_ids.0*"))
    content = bytearray(columns.read_bytes())
    content[50] ^= 4
    columns.write_bytes(content)
    with pytest.raises(UserError, match=columns.name) as problem:
        life(recipe, "train.lr=0.01").run(Silent())
    assert (problem.value.code, problem.value.exit) == ("E302", 4)
    files.remove(store(recipe, "encode"))  # the fix that the message names
    assert life(recipe, "train.lr=0.01").run(Silent()).name == "tiny-2"


class Breaking(Silent):
    """A view that ends the process's work at a step of a stage, as Ctrl-C would."""

    def __init__(self, stage: str, share: float):
        self.at, self.share, self.now = stage, share, ""

    def stage(self, node: str, note: str) -> None:
        self.now = node

    def progress(self, done: float, total: float, note: str) -> None:
        if self.now == self.at and done / total >= self.share:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files open when a stage is broken off
@pytest.mark.parametrize("stage", STAGES)
def test_what_was_broken_off_goes_on(stage: str, finished: Path, tmp_path: Path) -> None:
    recipe = project(tmp_path / "tiny")
    shutil.copytree(finished.parent / "runs" / "store", recipe.parent / "runs" / "store")
    for name in STAGES[STAGES.index(stage) :]:
        files.remove(store(recipe, name))
    with pytest.raises(KeyboardInterrupt):
        life(recipe).run(Breaking(stage, 0.5))
    assert recorded(recipe.parent / "runs") == []
    assert states(recipe)[stage][0] == ("continue" if stage == "pretrain" else "run")
    run = life(recipe).run(Silent())
    assert not list((recipe.parent / "runs").rglob("*.partial"))
    for name in STAGES:
        ours, theirs = Lineage.read(run.folders[name]), Lineage.read(store(finished, name))
        assert ours.output_hash == theirs.output_hash, name


def test_two_runs_at_once(recipe: Path) -> None:
    problems: list[UserError] = []

    class View(Silent):
        def progress(self, done: float, total: float, note: str) -> None:
            if not problems:
                with pytest.raises(UserError) as raised:
                    life(recipe, "train.lr=0.01").run(Silent())
                problems.append(raised.value)

    run = life(recipe, "train.lr=0.01").run(View())
    assert (problems[0].code, problems[0].exit) == ("E110", 2)
    assert f"pid {os.getpid()}" in problems[0].render()
    assert files.damage(run.folders["pretrain"]) == []
    assert not list((recipe.parent / "runs").rglob("*.lock"))


def test_no_room_on_the_disk(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write", full)
        with pytest.raises(UserError) as problem:
            life(recipe, "evaluate.samples=2").run(Silent())
    assert (problem.value.code, problem.value.exit) == ("E401", 5)
    assert statuses(recipe) == NOTHING
    assert life(recipe, "evaluate.samples=2").run(Silent()).number == 2


# --- what can be asked for ---


def test_a_run_ends_where_it_is_told(recipe: Path) -> None:
    run = life(recipe, "tokenizer.vocab_size=310").run(Silent(), "encode")
    assert list(run.folders) == ["prepare", "encode"]
    with pytest.raises(UserError, match="no stage encoed") as problem:
        life(recipe).run(Silent(), "encoed")
    assert problem.value.code == "E109"


def test_a_task_that_does_not_exist_is_found_before_anything_runs(tmp_path: Path) -> None:
    recipe = project(tmp_path / "tiny")
    with pytest.raises(UserError) as problem:
        life(recipe, "task=language_modelling").run(Silent())
    assert (problem.value.code, problem.value.exit) == ("E111", 2)
    assert not list((recipe.parent / "runs").glob("store/*"))


def test_an_adapter_that_does_not_exist_is_found_before_anything_runs(finished: Path) -> None:
    with pytest.raises(UserError) as problem:
        life(finished, "finetune.data=texts", 'finetune.adapt=[{kind = "lorra"}]')
    assert problem.value.code == "E120"


def test_tuning_without_rows_is_refused(finished: Path) -> None:
    with pytest.raises(UserError) as problem:
        life(finished, "finetune.tune=lora")
    assert problem.value.code == "E108"


BASED = RECIPE.replace("depth = 1\nwidth = 64\n", "").replace("[tokenizer]\nvocab_size = 300\n", "")


def based(recipe: Path) -> Path:
    """The recipe without what a base decides."""
    recipe.write_text(BASED)
    return recipe


def test_a_base_that_is_not_there(recipe: Path) -> None:
    with pytest.raises(UserError) as problem:
        statuses(based(recipe), "model.base=nowhere")
    assert problem.value.code == "E304"


def test_what_a_base_decides_is_refused(recipe: Path) -> None:
    with pytest.raises(UserError, match=r"model\.depth, model\.width, tokenizer\.vocab_size"):
        statuses(recipe, "model.base=base")


def test_a_base_is_part_of_the_key_and_of_the_lineage(recipe: Path) -> None:
    base = recipe.parent / "base"
    shutil.copytree(store(recipe, "pretrain"), base)
    given = ("model.base=base", "train.steps=1")
    recipe = based(recipe)
    run = life(recipe, *given).run(Silent())
    assert Lineage.read(run.folders["pretrain"]).inputs["base"]["folder"] == "base"
    assert statuses(recipe, *given) == NOTHING
    assert states(recipe, *given, "train.lr=0.01")["pretrain"][1] == ["train.lr 0.02 → 0.01"]
    tensors = files.read_tensors(base / "model.safetensors")
    files.write_tensors(base / "model.safetensors", {name: tensor + 1 for name, tensor in tensors.items()})
    found = states(recipe, *given)
    assert found["encode"][1] == ["its input base changed"]


# --- the records ---


def test_lineage_leads_back_to_the_raw_files(finished: Path) -> None:
    folder, names = store(finished, "evaluate"), []
    lineage = Lineage.read(folder)
    while lineage.inputs:
        names.append(lineage.node)
        parent = next(iter(lineage.inputs.values()))
        above = Lineage.read(folder.parent / parent["folder"])
        assert above.output_hash == parent["output_hash"]
        lineage = above
    assert names == ["evaluate", "pretrain", "encode"]
    assert lineage.files == {"texts/rows.jsonl": files.sha256(finished.parent / "texts" / "rows.jsonl")}
    for path in (finished.parent / "runs").rglob("*.json"):
        assert str(finished.parent) not in path.read_text("utf-8") or path.name == "files.json", path


def test_everything_carries_its_schema(finished: Path) -> None:
    root = finished.parent / "runs"
    found = [
        p for p in root.rglob("*.json") if p.name in ("lineage.json", "manifest.json", "run.json", "position.json")
    ]
    assert len(found) > 8
    for path in found:
        assert json.loads(path.read_text("utf-8"))["schema"] == 1, path
    assert tomllib.loads((store(finished, "pretrain") / "plan.toml").read_text())["schema"] == 1
    assert files.damage(root / "tiny-1") == []


def test_a_newer_schema_is_refused(recipe: Path) -> None:
    folder = store(recipe, "prepare")
    path = folder / "lineage.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(UserError) as problem:
        Lineage.read(folder)
    assert (problem.value.code, problem.value.exit) == ("E303", 4)


def test_the_saved_recipe_of_a_folder_runs_to_the_same(recipe: Path) -> None:
    for name in ("prepare", "encode"):
        assert statuses(store(recipe, name) / "danlu.toml") == NOTHING, name
    assert statuses(recipe.parent / "runs" / "tiny-1" / "recipe.toml") == NOTHING


def test_the_recipe_of_a_model_trains_the_same_weights_anew(recipe: Path) -> None:
    """A budget and every "auto" stand there as what they were measured to be."""
    given = ("train.budget=3s", "train.precision=auto", "model.depth=auto")
    model = life(recipe, *given).run(Silent(), "pretrain").folders["pretrain"]
    again = life(model / "danlu.toml", "system.runs=elsewhere").run(Silent(), "pretrain").folders["pretrain"]
    assert again.parent != model.parent
    assert files.sha256(again / "model.safetensors") == files.sha256(model / "model.safetensors")
    assert "budget" not in (model / "danlu.toml").read_text()


# --- runs ---


@pytest.fixture
def two(recipe: Path) -> tuple[Run, Run]:
    second = life(recipe, "train.lr=0.01").run(Silent())
    return runs.find(second.runs, "tiny-1"), second


def test_runs_are_found_by_name(two: tuple[Run, Run]) -> None:
    root = two[0].runs
    assert runs.find(root, "tiny").name == "tiny-2"
    with pytest.raises(UserError, match="tiny-1, tiny-2") as problem:
        runs.find(root, "tiny-3")
    assert problem.value.code == "E113"


def test_comparing_tells_only_what_differs(two: tuple[Run, Run]) -> None:
    changed, figures = runs.compare(*two)
    assert changed == ["pretrain: train.lr 0.02 → 0.01"]
    assert figures["2-gram.bits_per_byte"][0] == figures["2-gram.bits_per_byte"][1]
    assert figures["base.loss"][0] != figures["base.loss"][1]
    assert runs.compare(two[1], two[1])[0] == []


def test_showing_a_run(two: tuple[Run, Run]) -> None:
    shown = runs.show(two[1])
    assert list(shown["stages"]) == STAGES
    assert shown["stages"]["pretrain"]["steps"] == 6
    assert shown["metrics"]["base.loss"] > 0
    assert runs.summary(two[1])["stages"] == 4
    assert runs.why(two[1]) == {
        "prepare": [], "encode": [], "pretrain": ["train.lr 0.02 → 0.01"], "evaluate": ["its input base changed"]
    }  # fmt: skip


def test_the_reasons_stand_though_another_run_came_between(recipe: Path) -> None:
    life(recipe).run(Silent(), "encode")
    assert states(recipe, "train.lr=0.01")["pretrain"][1] == ["train.lr 0.02 → 0.01"]


def test_garbage_is_what_no_run_needs(two: tuple[Run, Run]) -> None:
    first, second = two
    root = first.runs
    old = [*(root / "store").iterdir(), root / "store" / "pretrain-dead.partial"]
    old[-1].mkdir()
    for folder in old:
        os.utime(folder, (1, 1))
    assert [folder.name for folder, _ in runs.garbage(root)] == ["pretrain-dead.partial"]
    forgotten = runs.forget(root, keep=1)
    assert [folder.name for folder in forgotten] == ["tiny-1"]
    assert runs.clear(forgotten) > 0
    garbage = {folder for folder, _ in runs.garbage(root)}
    assert garbage == {old[-1], first.folders["pretrain"], first.folders["evaluate"]}
    freed = runs.clear(sorted(garbage))
    assert freed > files.sha256(second.folders["pretrain"] / "model.safetensors").__len__()
    assert all(files.damage(folder) == [] for folder in second.folders.values())
    assert [run.name for run in recorded(root)] == ["tiny-2"]


def test_young_folders_are_left_alone(two: tuple[Run, Run]) -> None:
    runs.clear(runs.forget(two[0].runs, keep=1))
    assert runs.garbage(two[0].runs) == []


def test_a_life_knows_its_stages(finished: Path) -> None:
    tuned = Life(life(finished, "finetune.data=texts", "compress.kind=int8").loaded)
    names = [node.name for node in tuned.nodes]
    assert names == [
        "prepare",
        "encode",
        "prepare_finetune",
        "encode_finetune",
        "pretrain",
        "finetune",
        "evaluate",
        "compress",
    ]
