"""No key is accepted and ignored, continued: what is read after training, by the server, and by the machine.

The last test counts: every key of every section of the recipe, as the models of danlu.config have them, has a case in
one of these two files; a new key without one fails it.
"""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from pydantic import BaseModel

from danlu import cli, files, launch
from danlu.artifact import Lineage
from danlu.config import Compress, Evaluate, Recipe, Serve, System, Tokenizer
from danlu.data import dedup, store
from danlu.errors import UserError
from danlu.graph import Silent
from danlu.nn import transformer as compiled
from danlu.recipe import load_recipe
from danlu.serve.run import _engine, background, listen
from danlu.train import compiling, session
from danlu.train.plan import Plan
from tests import test_config_effect as earlier
from tests.serve.tiny import Tiny, tiny
from tests.tiny_life import RECIPE, life, project

pytestmark = pytest.mark.usefixtures("steady")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("later") / "tiny", RECIPE)


# --- [evaluate] and [compress] ---

EVALUATE: dict[str, tuple[Any, str]] = {
    "ngram": (3, "metrics.json"), "samples": (2, "samples.json"),
    "judge": ("", "test_generation.py tries it"), "show": ("", "and test_worst.py this"),
}  # fmt: skip


def evaluated(recipe: Path, *overrides: str) -> dict[str, Any]:
    """What the evaluation writes."""
    folder = life(recipe, *overrides).run(Silent(), "evaluate").folders["evaluate"]
    return {name: files.read_json(folder / name) for name in ("metrics.json", "samples.json")}


@pytest.mark.parametrize("key", [key for key in EVALUATE if EVALUATE[key][0]])
def test_every_key_of_evaluate_changes_what_is_written(key: str, recipe: Path) -> None:
    value, written = EVALUATE[key]
    before, after = evaluated(recipe), evaluated(recipe, f"evaluate.{key}={value}")
    assert [name for name in before if before[name] != after[name]] == [written]


DISTILL = {"teacher", "way", "share", "temperature"}  # test_distill.py tries each

COMPRESS = {"kind": "int8"}


@pytest.mark.parametrize("key", COMPRESS)
def test_every_key_of_compress_has_one_value_and_no_other(key: str, recipe: Path) -> None:
    asked = f"compress.{key}={COMPRESS[key]}"
    assert [node.name for node in life(recipe, asked).nodes][-1] == "compress"
    with pytest.raises(UserError, match=f"compress.{key}"):
        load_recipe(recipe, [f"compress.{key}=int2"])


# --- [serve] ---


@pytest.fixture(scope="module")
def served() -> Tiny:
    return tiny()


def status(served: Tiny, config: Serve, **headers: str) -> int:
    with background(served, "tiny", config) as url:
        return httpx.get(f"{url}/v1/models", headers=headers).status_code


def _host(served: Tiny) -> list[Any]:
    with listen(Serve(port=0)) as one, listen(Serve(port=0, host="127.0.0.2")) as other:
        return [one.getsockname()[0], other.getsockname()[0]]


def _port(served: Tiny) -> list[Any]:
    with listen(Serve(port=0)) as free:
        port = free.getsockname()[1]
        with pytest.raises(UserError, match=str(port)):
            listen(Serve(port=port))
        return [port, Serve().port]


def _slots(served: Tiny) -> list[Any]:
    found = []
    for slots in (1, 3):
        with _engine(served, Serve(slots=slots)) as engine:
            found.append(engine._slots.count)
    return found


def _queue(served: Tiny) -> list[Any]:
    found = []
    for queue in (1, 7):
        with _engine(served, Serve(queue=queue)) as engine:
            found.append(engine._most_waiting)
    return found


def _api_key(served: Tiny) -> list[Any]:
    closed = Serve(port=0, api_key="sesame")
    assert status(served, closed, Authorization="Bearer sesame") == 200
    return [status(served, Serve(port=0)), status(served, closed)]


SERVE = {"host": _host, "port": _port, "slots": _slots, "queue": _queue, "api_key": _api_key}


@pytest.mark.parametrize("key", SERVE)
def test_every_key_of_serve_reaches_the_server(key: str, served: Tiny) -> None:
    one, other = SERVE[key](served)
    assert one != other


# --- [system] ---


def _runs(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    return [
        life(recipe, *o).run(Silent(), "prepare").folders["prepare"].parents[1] for o in ((), ["system.runs=other"])
    ]


def _threads(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """What torch is told; two other seeds, so that both are trained."""
    told: list[int] = []
    patch.setattr(torch, "set_num_threads", told.append)
    found = []
    for number, threads in enumerate((1, 2)):
        told.clear()
        life(recipe, f"system.threads={threads}", f"seed={20 + number}").run(Silent(), "pretrain")
        found.append(told[0])
    return found


def _partitions(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """Working files of the first pass; what comes out is the same."""
    pieces: list[int] = []
    real = store.RowWriter.__init__

    def noted(self: Any, folder: Path, name: str, *rest: Any, shard: int = store.SHARD) -> None:
        pieces.extend([shard] * (name == "work"))
        real(self, folder, name, *rest, shard=shard)

    patch.setattr(store.RowWriter, "__init__", noted)
    outputs = set()
    for number in (1, 4):
        asked = (f"system.partitions={number}", f"system.runs=pieces-{number}")
        outputs.add(Lineage.read(life(recipe, *asked).run(Silent(), "prepare").folders["prepare"]).output_hash)
    assert len(outputs) == 1
    return pieces


def _data(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    engines: list[str] = []
    real = dedup.frame_of

    def noted(folder: Path, engine: str = "local") -> Any:
        engines.append(engine)
        return real(folder)

    patch.setattr(dedup, "frame_of", noted)
    for number, engine in enumerate(("local", "ray://127.0.0.1:1")):
        life(recipe, f"system.data={engine}", f"system.runs=engine-{number}").run(Silent(), "prepare")
    return engines


def _devices(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """How many ranks the command starts; one is the command itself."""
    started: list[int] = []

    def launched(count: int, arguments: Any) -> tuple[int, str]:
        started.append(count)
        return 0, ""

    patch.setattr(launch, "launch", launched)
    found = []
    for devices in (1, 2):
        started.clear()
        assert (
            cli.main(
                ["run", str(recipe), "--to", "pretrain", "-q", f"system.devices={devices}", f"seed={30 + devices}"]
            )
            == 0
        )
        found.append(list(started))
    return found


def _parallel(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """What a training is asked for; on one rank there is nothing to share."""
    asked: list[str] = []

    def noted(request: Any, *rest: Any) -> None:
        asked.append(request.parallel)
        raise UserError("E216")

    patch.setattr(session, "fit", noted)
    for number, way in enumerate(("ddp", "fsdp")):
        with pytest.raises(UserError):
            life(recipe, f"system.parallel={way}", f"seed={40 + number}").run(Silent(), "pretrain")
    return asked


def _device(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """Where a training is asked for; a device that is not there is refused before anything is built."""
    found: list[str] = []

    def noted(request: Any, *rest: Any) -> None:
        found.append(request.device)
        raise UserError("E216")

    patch.setattr(session, "fit", noted)
    for where in ("cpu", "cuda:99"):
        built = life(recipe, f"system.device={where}", f"system.runs=on-{where[:4]}")
        with pytest.raises(UserError) as refused:
            built.run(Silent(), "pretrain")
        found.append(refused.value.code)
    assert not list((recipe.parent / "on-cuda").glob("store/*"))
    return ["/".join(found[:2]), found[2]]


def _compile(recipe: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """From which step blocks run compiled; the compiler's work is tried in tests/train/test_compiling.py."""
    patch.setattr(compiled, "program", lambda: lambda block, *inputs: block(*inputs))
    patch.setattr(compiling, "available", lambda where: True)
    found = []
    for number, wish in enumerate(("true", "false")):
        made = life(recipe, f"system.compile={wish}", f"seed={50 + number}").run(Silent(), "pretrain")
        plan = Plan.read(made.folders["pretrain"])
        assert plan
        found.append(plan.compiled_from)
    return found


SYSTEM = {
    "runs": _runs, "threads": _threads, "partitions": _partitions, "data": _data, "devices": _devices,
    "parallel": _parallel, "device": _device, "compile": _compile,
}  # fmt: skip


@pytest.mark.parametrize("key", SYSTEM)
def test_every_key_of_system_decides_where_or_with_what(
    key: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = SYSTEM[key](recipe, monkeypatch)
    assert one != other


# --- all of them ---

TABLES: dict[str, set[str]] = {
    "data": {key.split(".")[0] for key in earlier.DATA},
    "tokenizer": set(Tokenizer.model_fields),  # that test takes its keys from the model, and knows a value for each
    "model": {*earlier.MODEL, "base"},
    "train": set(earlier.TRAIN), "pretrain": set(earlier.TRAIN),
    "finetune": earlier.OWN | set(earlier.TRAIN) | ({key.split(".")[0] for key in earlier.DATA} - {"path", "limit_mb"}),
    "evaluate": set(EVALUATE), "compress": set(COMPRESS), "distill": DISTILL, "serve": set(SERVE),
    "system": set(SYSTEM),
}  # fmt: skip
PLAIN = {"task", "seed", "options"}  # test_the_seed_and_the_task_decide, test_options.py


def sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The tables of a model by name, also those that may be left out."""
    for name, field in model.model_fields.items():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield name, part


def without_case(recipe: type[BaseModel]) -> list[str]:
    """Keys that none of the tables above tries, and cases of keys that there are not."""
    found = dict(sections(recipe))
    lost = list(set(recipe.model_fields) - set(found) - PLAIN)
    for name, section in found.items():
        lost += [f"{name}.{key}" for key in set(section.model_fields) ^ TABLES.get(name, set())]
    return sorted(lost)


def test_every_key_of_every_section_has_a_case() -> None:
    assert without_case(Recipe) == []
    assert [set(s.model_fields) for s in (Evaluate, Compress, Serve, System)] == [
        set(table) for table in (EVALUATE, COMPRESS, SERVE, SYSTEM)
    ]


def test_a_new_key_is_missed() -> None:
    class Longer(Evaluate):
        colour: str = "red"

    class Wider(Recipe):
        evaluate: Longer = Longer()
        whim: int = 1

    assert without_case(Wider) == ["evaluate.colour", "whim"]
    assert json.dumps(sorted(TABLES)) == json.dumps(sorted(name for name, _ in sections(Recipe)))
