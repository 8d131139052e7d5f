"""Which stages a recipe needs, which of them run, and why.

A stage is a function of (input folders, typed config) that writes one folder. A folder's key is the hash of what
went in: the stage's VERSION, the config as written, the output hashes of its inputs, the hashes of its raw files.
Paths, threads, logging and library versions are not in the key; they stand in the lineage.
"""

import contextlib
import hashlib
import importlib
import json
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from danlu import apart, device, files, ranks
from danlu.artifact import LINEAGE, PARTIAL, HashIndex, Lineage, building, goes_on, intact, made, raw_hashes
from danlu.config import System
from danlu.errors import UserError
from danlu.life import Node, life
from danlu.messages import text
from danlu.recipe import Loaded, resolved

STORE = "store"


class View(Protocol):
    """Whoever watches a run: the terminal, a test, nobody."""

    def stage(self, node: str, note: str) -> None: ...
    def progress(self, done: float, total: float, note: str) -> None: ...
    def line(self, line: str) -> None: ...


class Silent:
    """The view of nobody."""

    def stage(self, node: str, note: str) -> None: ...
    def progress(self, done: float, total: float, note: str) -> None: ...
    def line(self, line: str) -> None: ...


@dataclass
class Context:
    """All that a stage may read, and the folder that it writes."""

    config: Any
    inputs: dict[str, Path]
    out: Path
    loaded: Loaded
    view: View
    raw: tuple[Path, ...] = ()
    key: str = ""
    output_hash: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        return self.loaded.base

    @property
    def system(self) -> System:
        return self.loaded.recipe.system

    @property
    def seed(self) -> int:
        return self.loaded.recipe.seed

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.view.progress(done, total, note)

    def use_machine(self) -> str:
        """Let torch use what the recipe asks for, whatever the stage before has left; the device to compute on."""
        return device.use(self.system)


@dataclass
class State:
    """What would happen to a node now."""

    node: Node
    status: str  # cached, continue, run, waits (its inputs are not there yet)
    why: list[str]
    key: str = ""
    folder: Path | None = None
    hashes: dict[str, str] = field(default_factory=dict)


# --- keys --------------------------------------------------------------------------------------------


_WITHOUT_EFFECT = ("path", "base", "judge", "teacher", "deadline", "save_every", "sample")


def plain(config: Any) -> Any:
    """A config as JSON data, as written; paths, and what changes no result, are not part of it."""
    if hasattr(config, "model_dump"):
        return {k: v for k, v in config.model_dump(exclude_none=True).items() if k not in _WITHOUT_EFFECT}
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items() if value is not None}
    return config


def _key(node: Node, hashes: Mapping[str, str], raw: Mapping[str, str]) -> str:
    content = {
        "stage": node.stage,
        "version": node.module.VERSION,
        "config": plain(node.config),
        "inputs": dict(hashes),
        "files": sorted(f"{digest} {_suffixes(name)}" for name, digest in raw.items()),  # a suffix says how to read
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _suffixes(name: str) -> str:
    return "".join(Path(name).suffixes[-2:]).lower()


class Life:
    """The graph of one recipe on one disk: looks at what is there, and builds what is not."""

    def __init__(self, loaded: Loaded, *, allow_change: bool = False, apart: bool = False):
        self.loaded, self.allow_change, self.apart = loaded, allow_change, apart
        self.nodes = life(loaded.recipe)
        self.store = loaded.runs / STORE
        self.index = HashIndex(loaded.runs / "files.json")
        self.folders: dict[str, Path] = {}
        self.pins: dict[tuple[str, ...], Any] = {}
        self.earlier = [run for run in reversed(runs(loaded.runs)) if run.recipe == loaded.name]
        for node in self.nodes:
            if check := getattr(node.module, "check", None):  # what is wrong is said before anything runs
                check(node.config)

    def state(self, node: Node) -> State:
        """What a node's folder is now, and why it would have to be built.

        Raises:
            UserError: the raw files or the base model cannot be found.
        """
        raw = self._raw(node)
        if any(name not in self.folders for name in node.inputs.values()):
            waits = [name for name in node.inputs.values() if name not in self.folders]
            return State(node, "waits", [text("graph.waits", names=", ".join(dict.fromkeys(waits)))])
        hashes = {role: Lineage.read(self.folders[name]).output_hash for role, name in node.inputs.items()}
        hashes |= {role: self._external_hash(path) for role, path in node.external.items()}
        key = _key(node, hashes, raw)
        folder = self.store / f"{node.name}-{key}"
        state = State(node, "run", [], key, folder, raw)
        if folder.exists() and not files.damage(folder, deep=False):
            state.status = "cached"
        elif folder.exists():
            state.why = [text("graph.damaged", names=", ".join(files.damage(folder, deep=False)[:3]))]
        elif folder.with_name(folder.name + PARTIAL).exists() and getattr(node.module, "RESUMABLE", False):
            state.status, state.why = "continue", [text("graph.continues")]
        else:
            state.why = self._why(node, hashes, raw)
        return state

    def _raw(self, node: Node) -> dict[str, str]:
        if not node.raw:
            return {}
        hashes = raw_hashes(self.raw_files(node), self.loaded.base, self.index)
        self.index.save()
        return hashes

    def raw_files(self, node: Node) -> tuple[Path, ...]:
        """The files that the paths of a node stand for; what danlu itself wrote is not among them."""
        from danlu.data.sources import discover

        if not node.raw:
            return ()
        ours = (self.loaded.runs.resolve(), self.loaded.path.resolve())
        found = discover(node.raw, self.loaded.base, node.config.exclude, shape=node.config.shape)
        return tuple(path for path in found if not any(path.resolve().is_relative_to(each) for each in ours))

    def _external_hash(self, path: str) -> str:
        folder = self.loaded.model(path)
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise UserError("E304", path=folder)
        parts = [*weights, *(folder / name for name in ("config.json", "tokenizer.json", "table.json"))]
        digests = [self.index.sha256(part) for part in parts if part.is_file()]
        self.index.save()
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _why(self, node: Node, hashes: Mapping[str, str], raw: Mapping[str, str]) -> list[str]:
        """The keys, files and inputs that differ from this recipe's latest run of this stage."""
        folders = (run.folders.get(node.name) for run in self.earlier)
        before = next((folder for folder in folders if folder and folder.exists()), None) or self._left(node)
        if not before:
            return [text("graph.first")]
        old = Lineage.read(before)
        reasons = list(old.changes(plain(node.config), raw))
        reasons += [
            text("graph.input", name=role)
            for role, new in hashes.items()
            if old.inputs.get(role, {}).get("output_hash") != new
        ]
        if old.version != node.module.VERSION:
            reasons.append(text("graph.version", old=old.version, new=node.module.VERSION))
        if reasons and before.suffix == PARTIAL:
            reasons.append(text("graph.left", folder=before.name))
        return reasons or [text("graph.first")]

    def _left(self, node: Node) -> Path | None:
        """What was begun of this stage, with another key, and not finished."""
        found = [path for path in self.store.glob(f"{node.name}-*{PARTIAL}") if (path / LINEAGE).is_file()]
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)

    def states(self, to: str | None = None) -> Iterator[State]:
        """Each node's state as far as it can be known before anything runs."""
        for node in self._until(to):
            state = self.state(node)
            if state.status == "cached" and state.folder:
                self.folders[node.name] = state.folder
            yield state

    def _until(self, to: str | None) -> list[Node]:
        names = [node.name for node in self.nodes]
        if to is not None and to not in names:
            raise UserError("E109", found=to, valid=", ".join(names))
        return self.nodes[: names.index(to) + 1] if to else self.nodes

    def run(self, view: View, to: str | None = None) -> "Run":
        """Bring every stage up to date and record the run."""
        record = Run(self.loaded.runs, self.loaded.name)
        self.ready(to)
        for node in self._until(to):
            state = self.state(node)
            view.stage(node.name, "; ".join(state.why) or text("graph.cached"))
            if hasattr(view, "detail"):
                view.detail(str(state.folder))
            if state.status != "cached":
                self._build(state, view)
            assert state.folder
            self._pin(node, state.folder)
            self.folders[node.name] = record.folders[node.name] = state.folder
            record.why[node.name] = [] if state.status == "cached" else state.why
        record.save(self.loaded)
        return record

    def _build(self, state: State, view: View) -> None:
        node, started = state.node, time.time()
        assert state.folder is not None
        device.check(self.loaded.recipe.system.device)
        inputs = {role: self.folders[name] for role, name in node.inputs.items()}
        for folder in inputs.values():
            intact(folder, deep=True)
        inputs |= {role: self.loaded.model(path) for role, path in node.external.items()}
        with node.keys(), building(state.folder, resumable=getattr(node.module, "RESUMABLE", False)) as out:
            if out is None:  # another run has finished it meanwhile
                return
            context = Context(node.config, inputs, out, self.loaded, view, self.raw_files(node), state.key)
            begun = self._lineage(state, context, inputs, started)
            goes_on(out, begun.made, view.line if self.allow_change else None)
            begun.write(out)
            if getattr(node.module, "RANKS", False):
                ranks.tell({"node": node.name, "inputs": {n: str(p) for n, p in inputs.items()}, "out": str(out)})
            with ranks.watched():
                spent = self._call(node.module, context)
                started = time.time() - spent
            self._pin(node, out)
            self._lineage(state, context, inputs, started).write(out)
            files.write_text(out / "danlu.toml", resolved(self.loaded, state.folder, self.pins))

    def _call(self, stage: Any, context: Context) -> float:
        """Run a stage, in a process of its own where a training follows that has no use for what it loads; seconds."""
        if self.apart and getattr(stage, "APART", False):
            return apart.run(stage.run, context, partial(importlib.import_module, "danlu.train.session"))
        begun = time.monotonic()
        stage.run(context)
        return time.monotonic() - begun

    def trains(self, to: str | None = None) -> bool:
        """Whether a run would train something now."""
        return any(s.status != "cached" for s in self.states(to) if getattr(s.node.module, "RANKS", False))

    def ready(self, to: str | None = None) -> None:
        """Where a training is to come, let each stage look at what it will read, before anything slow.

        Raises:
            UserError: what the stages' `look` raises.
        """
        trains = self.trains(to)
        self.apart = self.apart and trains and apart.possible()
        if not trains:
            return
        for node in self._until(to):
            if node.name not in self.folders and (look := getattr(node.module, "look", None)):
                with node.keys():
                    look(node, self.loaded, self.raw_files(node))

    def follow(self) -> None:
        """Take part in the trainings of rank 0, as one of the other ranks, until there are no more."""
        nodes = {node.name: node for node in self.nodes}
        for call in ranks.calls():
            node, inputs = nodes[call["node"]], {role: Path(path) for role, path in call["inputs"].items()}
            with ranks.watched():
                node.module.run(Context(node.config, inputs, Path(call["out"]), self.loaded, Silent()))

    def _pin(self, node: Node, folder: Path) -> None:
        """Remember what a training measured, for the recipe that is saved with its model."""
        if not (folder / "plan.toml").is_file():
            return
        plan = tomllib.loads((folder / "plan.toml").read_text("utf-8"))
        tokens = plan["rows"] * plan["accumulate"] * plan["context"]
        plan |= {"batch_tokens": tokens, "compile": plan["compiled_from"] >= 0}
        found = {node.stage: ("steps", "batch_tokens", "precision", "attention", "dropout"), "system":
                 ("threads", "device", "compile"), "model": ("depth",) if node.stage == "pretrain" else ()}  # fmt: skip
        self.pins |= {(section, key): plan[key] for section, keys in found.items() for key in keys}

    def _lineage(self, state: State, context: Context, inputs: Mapping[str, Path], started: float) -> Lineage:
        node = state.node
        hashes = {role: Lineage.read(inputs[role]).output_hash for role in node.inputs}
        hashes |= {role: self._external_hash(path) for role, path in node.external.items()}
        parents = {role: {"folder": inputs[role].name, "output_hash": found} for role, found in hashes.items()}
        return Lineage(node.name, node.stage, node.module.VERSION, state.key, plain(node.config), parents, state.hashes,
                       context.output_hash, made(started), context.facts)  # fmt: skip


# --- runs --------------------------------------------------------------------------------------------


@dataclass
class Run:
    """The record of one life: which folders it is made of."""

    runs: Path
    recipe: str
    number: int = 0
    folders: dict[str, Path] = field(default_factory=dict)
    why: dict[str, list[str]] = field(default_factory=dict)
    at: str = ""

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.number}"

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def model(self) -> Path | None:
        """The best-finished model of this life: tuned before base."""
        return next((self.folders[name] for name in ("finetune", "pretrain") if name in self.folders), None)

    def save(self, loaded: Loaded) -> None:
        """Record the run under its number; the same folders again keep the number of the first time."""
        earlier = [run for run in runs(self.runs) if run.recipe == self.recipe]
        same = next((run for run in earlier if run.folders == self.folders), None)
        self.number = same.number if same else max((run.number for run in earlier), default=0) + 1
        self.at = same.at if same else time.strftime("%Y-%m-%d %H:%M:%S")
        if same:
            self.why = same.why
            return
        self._claim()
        stages = {name: folder.name for name, folder in self.folders.items()}
        record = {
            "schema": files.SCHEMA,
            "recipe": self.recipe,
            "number": self.number,
            "at": self.at,
            "stages": stages,
            "why": self.why,
        }
        files.write_text(self.folder / "recipe.toml", resolved(loaded, self.folder))
        files.write_json(self.folder / "run.json", record)
        files.seal(self.folder)

    def _claim(self) -> None:
        """Take the first number that no other run of this recipe has, also one that ends at this moment."""
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(parents=True)
            return
        self.number += 1
        self._claim()


def runs(root: Path) -> list[Run]:
    """All recorded runs, oldest first."""
    found = []
    for path in sorted(root.glob("*/run.json")):
        table = files.read_json(path)
        folders = {name: root / STORE / folder for name, folder in table["stages"].items()}
        found.append(Run(root, table["recipe"], table["number"], folders, table["why"], table["at"]))
    return sorted(found, key=lambda run: (run.at, run.number))
