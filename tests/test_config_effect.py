"""No key is accepted and ignored: each one, changed, changes what is computed, or the recipe is refused.

Every table below must name all keys of its section, so that a new key needs a line that shows what it does; that none
is missing is counted in test_config_effect_later.py, where the sections stand that are read after training.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from danlu import adapt, files
from danlu.artifact import Lineage
from danlu.config import READ_BY, Data, Finetune, ModelSection, Recipe, Tokenizer, Train
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.modalities.text import Text
from danlu.recipe import load_recipe
from danlu.train import checkpoint, session, size
from danlu.train.plan import Plan
from danlu.train.session import METRICS, Interrupted, fit
from tests.tiny_life import RECIPE, life, project, sentences
from tests.train.tiny import network, request

Keys = dict[str, Any]

pytestmark = pytest.mark.usefixtures("steady")


# --- [train] ---


@dataclass(frozen=True)
class Seen:
    """What one tiny training did."""

    weights: str = ""
    plan: tuple[tuple[str, Any], ...] = ()  # what it decided, without what it measured
    looked: tuple[int, ...] = ()  # steps at which it evaluated
    saved: tuple[int, ...] = ()  # steps at which it saved
    ended: str = ""


MEASURED = {"seconds_per_step", "seconds", "memory_mb", "peak_gflops"}  # of the plan: never twice the same
BASE: Keys = {"steps": 6, "lr": 0.02, "batch_tokens": 128, "evaluate_every": 2, "save_every": 2, "precision": "fp32",
              "optimizer": "adamw", "dropout": 0.0, "attention": "sdpa"}  # fmt: skip
WILD: Keys = {"lr": 0.5, "schedule": "constant", "evaluate_every": 1, "steps": 8}  # the best weights are old ones
TRAIN: dict[str, tuple[Keys, Any, str]] = {  # key: (what stands beside it, its other value, what must change)
    "optimizer": ({}, "muon", "weights"),
    "lr": ({}, 0.01, "weights"),
    "schedule": ({}, "cosine", "weights"),
    "warmup": ({}, 0.5, "weights"),
    "decay": ({"schedule": "wsd"}, 0.9, "weights"),
    "final_lr": ({}, 0.5, "weights"),
    "momentum": ({"optimizer": "sgd"}, 0.5, "weights"),
    "beta1": ({}, 0.5, "weights"),
    "beta2": ({}, 0.5, "weights"),
    "weight_decay": ({}, 0.9, "weights"),
    "l1": ({}, 0.1, "weights"),
    "l2": ({}, 0.1, "weights"),
    "layer_decay": ({}, 0.5, "weights"),
    "rates": ({}, {"mlp": 0.1}, "weights"),
    "unfreeze": ({}, 1.0, "weights"),
    "clip": ({}, 0.01, "weights"),
    "dropout": ({}, 0.3, "weights"),
    "batch_tokens": ({}, 256, "weights"),
    "accumulate": ({}, 2, "plan"),
    "budget": ({"steps": None, "budget": "1s"}, "2s", "weights"),
    "tokens": ({"steps": None, "tokens": 500}, "1k", "weights"),
    "epochs": ({"steps": None, "epochs": 0.2}, 0.5, "weights"),
    "steps": ({}, 7, "weights"),
    "deadline": ({}, "0.000001s", "ended"),
    "precision": ({}, "bf16", "weights"),
    "attention": ({}, "written", "plan"),
    "recompute": ({}, True, "plan"),
    "evaluate_every": ({}, 3, "looked"),
    "save_every": ({}, 3, "saved"),
    "stop_early": (WILD, 1, "looked"),
    "select": (WILD, "last", "weights"),
    "average": ({}, 0.9, "weights"),
    "sample": ({}, "The", "lines"),  # below: a text needs a real vocabulary
}


def test_every_key_of_train_is_tried() -> None:
    assert set(TRAIN) == set(Train.model_fields)


def trained(folder: Path, keys: Keys) -> Seen:
    """One training of some milliseconds."""
    saved: list[int] = []
    real = checkpoint.save

    def saving(root: Path, state: Any, **rest: Any) -> None:
        saved.append(state.position.step)
        real(root, state, **rest)

    out, ended = folder / "out", ""
    out.mkdir(parents=True)
    asked = replace(request(folder, Train(**keys)), started=time.monotonic())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.checkpoint, "save", saving)
        try:
            weights = files.tensors_hash(fit(asked, network(), out, 9, Silent()).weights)
        except Interrupted as stop:
            ended, weights = str(stop), ""
    entries = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    plan = Plan.read(out)
    assert plan
    looked = tuple(entry["step"] for entry in entries if "validation" in entry)
    decided = tuple((key, value) for key, value in asdict(plan).items() if key not in MEASURED)
    return Seen(weights, decided, looked, tuple(saved), ended)


@pytest.mark.parametrize("key", [key for key in TRAIN if key != "sample"])
def test_every_key_of_train_has_an_effect(key: str, tmp_path: Path) -> None:
    beside, value, what = TRAIN[key]
    keys = BASE | beside
    before, after = trained(tmp_path / "before", keys), trained(tmp_path / "after", keys | {key: value})
    assert getattr(before, what) != getattr(after, what)


def test_the_same_keys_change_nothing(tmp_path: Path) -> None:
    """Otherwise any comparison above would succeed."""
    assert trained(tmp_path / "one", BASE) == trained(tmp_path / "two", BASE)


def test_the_sample_is_continued(tmp_path: Path) -> None:
    said: list[str] = []

    class View(Silent):
        def line(self, line: str) -> None:
            said.append(line)

    recipe = project(tmp_path / "tiny")
    life(recipe).run(View(), "pretrain")
    assert not [line for line in said if line.startswith("    ")]
    life(recipe, "train.sample=The quiet", "seed=8").run(View(), "pretrain")
    assert [line for line in said if line.strip().startswith("The quiet")]


@pytest.mark.parametrize("section", ["train", "pretrain", "finetune"])
@pytest.mark.parametrize("key", TRAIN)
def test_every_table_of_training_reaches_its_training(section: Any, key: str, tmp_path: Path) -> None:
    """[train], [pretrain] and [finetune] take the same keys; what they say is what the stage is given."""
    beside, value, _ = TRAIN[key]
    others = {
        name: v for name, v in beside.items() if v is not None and name != key and name not in ("steps", "budget")
    }
    own = {**others, key: value}
    recipe = tmp_path / "recipe.toml"
    head = 'task = "language_modeling"\n[data]\npath = "x"\n'
    tables = {name: own if name == section else {} for name in ("train", "pretrain", "finetune")}
    body = "".join(
        f"[{name}]\n" + "".join(f"{k} = {json.dumps(v, separators=(', ', ' = '))}\n" for k, v in t.items())
        for name, t in tables.items()
    )
    recipe.write_text(head + body.replace("[finetune]\n", '[finetune]\ndata = "y"\n'), encoding="utf-8")
    loaded = load_recipe(recipe).recipe
    for stage in ("pretrain", "finetune"):
        reached = getattr(loaded.training(stage), key) == value  # type: ignore[arg-type]
        assert reached == (section in ("train", stage)), stage


OTHER = {"optimizer": "rmsprop", "schedule": "constant"}  # which read none of the keys below


@pytest.mark.parametrize("key", READ_BY)
def test_what_nothing_would_read_is_refused(key: str, tmp_path: Path) -> None:
    decider, readers = READ_BY[key]
    other = next(
        name for name in ("adam", "rmsprop", "constant", "linear") if _may(decider, name) and name not in readers
    )
    recipe = tmp_path / "recipe.toml"
    value = json.dumps(TRAIN[key][1])
    recipe.write_text(
        f'task = "language_modeling"\n[data]\npath = "x"\n[train]\n{decider} = "{other}"\n{key} = {value}\n'
    )
    with pytest.raises(UserError, match=key):
        load_recipe(recipe)


def _may(decider: str, name: str) -> bool:
    return (name in ("adam", "rmsprop")) == (decider == "optimizer")


# --- [model] and [tokenizer] ---

MODEL: dict[str, Any] = {
    "arch": "gpt2", "depth": 3, "context": 48, "width": 192, "heads": 4, "kv_heads": 1, "hidden": 64, "tied": False,
    "patch": 8, "stages": 2, "size": "tiny", "queries": 5,
}  # fmt: skip


def test_every_key_of_model_is_tried() -> None:
    assert set(MODEL) | {"base"} == set(ModelSection.model_fields)


OF_PICTURES = {"patch": "vit", "stages": "cnn", "size": "vit", "queries": "detr"}  # which form has the key


@pytest.mark.parametrize("key", MODEL)
def test_every_key_of_model_changes_the_network(key: str) -> None:
    said: Keys = {"depth": 2, "width": 128} if key != "size" else {}  # which says them itself
    tasks = {None: "language_modeling", "detr": "object_detection"}
    seen: Keys = {"task": tasks.get(OF_PICTURES.get(key), "image_classification")}
    keys = {"arch": OF_PICTURES.get(key, "gpt")} | said | ({} if key in OF_PICTURES else {"context": 32})

    def made(section: Keys) -> Any:
        recipe = Recipe.model_validate({**seen, "data": {"path": "x"}, "model": section})
        return size.architecture(recipe.backbone, Train(), 300, 10_000)

    assert made(keys | {key: MODEL[key]}) != made(keys)


def test_a_base_takes_the_place_of_all_that_it_decides(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('task = "language_modeling"\n[data]\npath = "x"\n[model]\nbase = "there"\n')
    nodes = {node.name: node for node in life(recipe).nodes}
    assert nodes["pretrain"].external == nodes["encode"].external == {"base": "there"}
    for key in set(MODEL) - {"context"}:
        with pytest.raises(UserError, match=key):
            load_recipe(recipe, [f"model.{key}={json.dumps(MODEL[key])}"])


@pytest.mark.parametrize("key", Tokenizer.model_fields)
def test_every_key_of_tokenizer_changes_the_ids(key: str) -> None:
    values: Keys = {"type": "char", "vocab_size": 280}
    before, after = ({"type": "bpe", "vocab_size": 320} | change for change in ({}, {key: values[key]}))
    made = [Text.fit(sentences(60), **keys).encode(sentences(60)[3]) for keys in (before, after)]
    assert made[0] != made[1]


# --- [data] ---

ROWS = sentences(150)
DATA: dict[str, tuple[list[str], str]] = {  # key: (what stands beside it, the change)
    "path": ([], "texts/more.jsonl"),
    "format": ([], "text"),
    "record": (["data.path=notes"], "line"),
    "section": (["data.path=notes", "data.record=section"], "200"),
    "columns": ([], '{text = "body"}'),
    "valid": ([], '["held.jsonl"]'),
    "test": ([], '["held.jsonl"]'),
    "shape": ([], "pair"),
    "header": (["data.path=table.csv"], "false"),
    "pattern": (["data.path=notes"], "(?P<text>.*)"),
    "encoding": (["data.path=gb.txt"], "utf-8"),
    "bad_records": (["data.path=bad.jsonl"], "skip"),
    "exclude": ([], '["more.jsonl"]'),
    "ignore": (["data.shape=record", "data.path=cells.csv", "data.columns={label = 'kind'}"], '["b"]'),
    "void": ([], "3"),  # test_masks.py has one that is read
    "limit_mb": ([], "0.02"),
    "clean": ([], '["drop_empty"]'),
    "dedup.threshold": ([], "0.3"),
    "dedup.ngram": (["data.dedup.threshold=0.5"], "char"),
    "dedup.size": (["data.dedup.threshold=0.5"], "1"),
    "dedup.correlation": ([], "0.9"),  # tests/data/test_lookalikes.py has pictures, which it is read of
    "split.valid": ([], "0.3"),
    "split.test": ([], "0.3"),
}


def test_every_key_of_data_is_tried() -> None:
    assert {key.split(".")[0] for key in DATA} == set(Data.model_fields)


def line(**row: str) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose files let every way of reading matter."""
    recipe = project(tmp_path_factory.mktemp("data") / "tiny")
    here = recipe.parent
    named = [line(text=f"  {text}\u00a0 ", body=f"Another: {text}") for text in ROWS]
    (here / "texts" / "rows.jsonl").write_text("".join([*named, *named[:5]]), encoding="utf-8")
    (here / "texts" / "more.jsonl").write_text("".join(line(text=f"More of {t}", body=t) for t in ROWS[:40]), "utf-8")
    (here / "held.jsonl").write_text("".join(line(text=f"Held out: {t}") for t in ROWS[:20]), encoding="utf-8")
    (here / "table.csv").write_text("text\n" + "".join(f'"{t}"\n' for t in ROWS[:60]), encoding="utf-8")
    cells = "".join(f"{at % 7},{at % 5},{'yes' if at % 3 else 'no'}\n" for at in range(60))
    (here / "cells.csv").write_text("a,b,kind\n" + cells, encoding="utf-8")
    (here / "notes").mkdir()
    paragraphs = ["\n".join(ROWS[at : at + 5]) for at in range(0, 100, 5)]
    (here / "notes" / "notes.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    (here / "gb.txt").write_bytes("\n\n".join(f"{t} 炼丹炉里炼金丹" for t in ROWS[:60]).encode("gb18030"))
    (here / "bad.jsonl").write_text("".join([*named[:60], "{broken\n"]), encoding="utf-8")
    return recipe


@cache
def prepared(recipe: Path, *overrides: str) -> str:
    """What the prepare stage makes of the files: the hash of its rows, or the code of its refusal."""
    try:
        return Lineage.read(life(recipe, *overrides).run(Silent(), "prepare").folders["prepare"]).output_hash
    except UserError as refused:
        return refused.code


@pytest.mark.parametrize("key", DATA)
def test_every_key_of_data_changes_the_rows_or_is_refused(key: str, raw: Path) -> None:
    beside, value = DATA[key]
    assert prepared(raw, *beside, f"data.{key}={value}") != prepared(raw, *beside)


# --- [finetune] ---

OWN = {"data", "derive", "task", "options", "max_answer", "tune", "adapt", "keep_adapters"}


def test_every_key_of_finetune_is_tried() -> None:
    reading = set(Data.model_fields) - {"path", "limit_mb"}
    assert set(Finetune.model_fields) == OWN | reading | set(Train.model_fields)


@pytest.mark.parametrize("key", sorted(set(Data.model_fields) - {"path", "limit_mb"}))
def test_every_way_of_reading_reaches_the_rows_to_tune_on(key: str) -> None:
    values: Keys = {
        "format": "csv", "record": "line", "section": 300, "columns": {"text": "b"}, "encoding": "utf-8",
        "bad_records": "skip", "exclude": ["x"], "clean": ["drop_empty"], "dedup": {"threshold": 0.5},
        "split": {"valid": 0.3}, "valid": ["v"], "test": ["t"], "shape": "text", "header": False,
        "pattern": "(?P<text>.*)", "ignore": ["x"], "void": 3,
    }  # fmt: skip
    tune = {"data": ["y"], key: values[key]}
    recipe = Recipe.model_validate({"task": "language_modeling", "data": {"path": "x"}, "finetune": tune})
    assert getattr(recipe.reading(), key) == getattr(recipe.finetune, key) != Data.model_fields[key].default


def test_every_way_of_tuning_trains_other_weights() -> None:
    entries = [
        adapt.short(tune) for tune in ("full", "head", "last-1", "lora", "dora", "qlora", "prefix", "adapter", "bitfit")
    ]
    entries += [[{"kind": "lora", "rank": 2}], [{"kind": "lora", "targets": ["q"]}], [{"kind": "prefix", "tokens": 4}]]
    entries += [[{"kind": "bottleneck", "width": 4}]]
    found = []
    for adapters in entries:
        net = adapt.apply(network(), adapters, 1)
        held = {(name, b.dtype) for name, b in net.named_buffers()}
        found.append(frozenset(held | {(name, p.shape) for name, p in net.named_parameters() if p.requires_grad}))
    assert len(set(found)) == len(found)


TUNING = RECIPE + '\n[finetune]\ndata = "pairs.jsonl"\nepochs = 1.0\n'


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = project(tmp_path_factory.mktemp("tune") / "tiny", TUNING)
    pairs = [line(prompt=text[:20], completion=text[20:] * (1 + index % 3)) for index, text in enumerate(ROWS)]
    (recipe.parent / "pairs.jsonl").write_text("".join(pairs), encoding="utf-8")
    (recipe.parent / "others.jsonl").write_text("".join(pairs[:50]), encoding="utf-8")
    derived = TUNING.replace('path = "texts"', 'path = "pairs.jsonl"').replace('data = "pairs.jsonl"', "derive = 'x'")
    (recipe.parent / "derived.toml").write_text(derived, encoding="utf-8")
    return recipe


@cache
def encoded(recipe: Path, *overrides: str) -> str:
    """What the tuning would read, or the code of the refusal."""
    try:
        run = life(recipe, *overrides).run(Silent(), "encode_finetune")
        return Lineage.read(run.folders["encode_finetune"]).output_hash
    except UserError as refused:
        return refused.code


@pytest.mark.parametrize(
    "change", ["finetune.data=others.jsonl", "finetune.task=language_modeling", "finetune.max_answer=12"]
)
def test_every_source_of_tuning_changes_its_columns(change: str, tuned: Path) -> None:
    assert encoded(tuned, change) != encoded(tuned)


def test_every_derivation_makes_other_rows_or_is_refused(tuned: Path) -> None:
    recipe = tuned.parent / "derived.toml"
    made = [encoded(recipe, f"finetune.derive={name}") for name in ("same_rows", "python_functions", "unheard_of")]
    assert len(set(made)) == 3
    assert made[1:] == ["E204", "E215"], "pairs of English hold no Python"


# --- seed and task ---


def test_the_seed_and_the_task_decide(tmp_path: Path) -> None:
    def nodes(*overrides: str) -> Any:
        return {node.name: node.config for node in life(recipe, *overrides).nodes}

    recipe = tmp_path / "recipe.toml"
    recipe.write_text('task = "language_modeling"\n[data]\npath = "x"\n')
    assert nodes("seed=3")["pretrain"]["seed"] == 3
    assert nodes("task=instruction")["encode"]["task"] == "instruction"
    seeds = [fit_of(tmp_path / str(seed), seed) for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def fit_of(folder: Path, seed: int) -> str:
    folder.mkdir(exist_ok=True)
    out = folder / f"out-{time.monotonic_ns()}"
    out.mkdir()
    asked = replace(request(folder / f"data-{time.monotonic_ns()}", Train(**BASE | {"dropout": 0.2})))
    return files.tensors_hash(fit(asked, network(0.2), out, seed, Silent()).weights)
