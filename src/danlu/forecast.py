"""What a run would do and cost, before it does anything: `danlu run RECIPE --plan`.

Training is forecast from a few real steps of a throw-away model; reading from the rate of this machine's earlier runs,
where there are any; the rest from what two cores of a server processor took (benchmarks/forecast.py). Every figure says
which of these it comes from.
"""

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import apart, catalogue, files
from danlu.artifact import Lineage
from danlu.config import PICTURED
from danlu.graph import STORE, Life, State
from danlu.life import Node
from danlu.messages import text

if TYPE_CHECKING:
    from danlu.train.plan import Plan

_START = 0.7  # seconds until the first stage begins
_READING = 6e6  # bytes per second, until this machine has shown its own
_MERGING = 5e3  # million bytes times tokens of vocabulary per second: learning merges
_ENCODING = 6e6  # bytes per second
_LEARNED = 12e6  # bytes that a vocabulary is learned from, at most
_TOUCHED = 5e9  # bytes of weights per second, read once for every token of a sample
_LAYER = 0.3e-3  # seconds of a layer for every token of a sample, whatever its size
_SAMPLED = 96  # tokens of each sample
_LOOKED = 1_000_000  # bytes of raw text from which the size of a vocabulary is told
_KEPT_MB = 150  # that reading and encoding leave in the process, where they have none of their own: their libraries
_BESIDE_MB = 150  # that a process with torch holds beside theirs, where they have
_LOOKING_MB = 35  # that evaluation and samples add to the steps
_LEAST_MB = 450  # of a process that has loaded torch and a model
_BYTES_PER_TOKEN = 3.4
_PICTURES = 1000  # that are made, where a model makes some, each in so many passes as it takes steps
_SAMPLE = 100_000  # bytes of raw text that a base's tokenizer is tried on


@dataclass(frozen=True)
class Basis:
    """Where the figures of a stage come from: whether each is measured or estimated, and from what; in words."""

    minutes: str = ""
    memory: str = ""
    disk: str = ""

    def __str__(self) -> str:
        said = {"minutes": self.minutes, "memory": self.memory, "disk": self.disk}
        return "; ".join(f"{text(f'plan.{name}')}: {words}" for name, words in said.items() if words)


@dataclass
class Cost:
    """One stage's forecast: seconds, MB of memory and of disk; of what it trains, size and seconds to pass a row."""

    seconds: float = 0.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    basis: Basis = Basis()
    measured: float = 0.0  # of the seconds
    model: int = 0  # weights
    layers: int = 0
    row: float = 0.0


def forecast(life: Life, to: str | None = None) -> list[dict[str, Any]]:
    """One row per stage: what would happen, why, and the forecast cost of what would run."""
    life.ready(to)
    size, costs, rows = Sizes(life), [Cost(_START)], []
    for state in life.states(to):
        costs.append(Cost() if state.status == "cached" else _cost(life, state, size, costs))
        rows.append(_row(state.node.name, text(f"plan.{state.status}"), "; ".join(state.why), costs[-1]))
    return [*rows, _row(text("plan.total"), "", "", _total(costs))]


def _seen(task: str) -> bool:
    """Whether the rows of a task are pictures."""
    return catalogue.stated(task, "shape") in PICTURED


def _total(costs: list[Cost]) -> Cost:
    seconds, measured = (sum(getattr(cost, name) for cost in costs) for name in ("seconds", "measured"))
    share = text("plan.basis.share", share=f"{measured / seconds:.0%}")
    most = max(costs, key=lambda cost: cost.memory_mb)
    basis = Basis(share, text("plan.basis.largest"), text("plan.basis.sum"))
    return Cost(seconds, most.memory_mb, sum(cost.disk_mb for cost in costs), basis)


def _row(stage: str, status: str, why: str, cost: Cost) -> dict[str, Any]:
    return {
        text("plan.stage"): stage,
        text("plan.status"): status,
        text("plan.why"): why,
        text("plan.minutes"): round(cost.seconds / 60, 2),
        text("plan.memory"): round(cost.memory_mb),
        text("plan.disk"): round(cost.disk_mb, 1),
        text("plan.from"): str(cost.basis),
    }


class Sizes:
    """How much text there is, exactly where the rows are encoded already, else from the raw files."""

    def __init__(self, life: Life):
        self.life = life
        self.raw: float = sum(path.stat().st_size for path in life.raw_files(life.nodes[0]))
        limit = life.loaded.recipe.data.limit_mb
        self.raw = min(self.raw, limit * 1e6) if limit else self.raw

    def bytes(self, state: State) -> float:
        """Raw bytes behind a node."""
        if state.node.raw:
            return (
                float(sum(path.stat().st_size for path in self.life.raw_files(state.node)))
                if state.node.name != "prepare"
                else self.raw
            )
        if state.node.name.endswith("_finetune") and (tune := self.life.loaded.recipe.finetune) and tune.data:
            return self._raw_bytes(next(node for node in self.life.nodes if node.name == "prepare_finetune"))
        return self.raw * (0.25 if state.node.name.endswith("_finetune") else 1.0)

    def _raw_bytes(self, node: Node) -> float:
        return float(sum(path.stat().st_size for path in self.life.raw_files(node)))

    def tokens(self, state: State) -> tuple[int, int]:
        """(training tokens, vocabulary) of the columns that a training node reads."""
        folder = self.life.folders.get(state.node.inputs["columns"])
        if folder:
            table = files.read_json(folder / "tokens.json")
            return int(table["splits"]["train"]["tokens"]), int(table["tokenizer"]["vocab_size"])
        if _seen(self.life.loaded.recipe.task):
            return self._counted(), 0
        of_its_own = state.node.name == "finetune" and state.node.inputs["columns"] != "encode"
        source = 0.9 * self.bytes(State(_encode_of(self.life, state), "run", [])) if of_its_own else self.learned()
        return max(1000, int(source / self.token_bytes())), self.vocabulary()

    def row(self, state: State, context: int) -> int:
        """Tokens of a packed row: fewer than the context where rows are encoded already, and all of them are short."""
        from danlu import tasks
        from danlu.data.columns import Columns
        from danlu.data.loader import Loader

        folder = self.life.folders.get(state.node.inputs["columns"])
        columns = Columns(folder / "columns" / "train") if folder else None
        if columns is None or columns.longest > context // 2:
            return context  # without packing millions of rows
        task: Any = tasks.load(state.node.config["task"])
        return Loader(columns, context, long=task.long, ahead=task.ahead, seed=0).context

    def _counted(self) -> int:
        """Pictures to learn from."""
        from danlu.data import pictured
        from danlu.data.sources import discover

        shape = catalogue.stated(self.life.loaded.recipe.task, "shape")
        held_out = self.life.loaded.recipe.data.held_out().values()
        others = {path for paths in held_out for path in discover(paths, self.life.loaded.base, shape=shape)}
        return max(1, sum(pictured.count(path) for path in self._unmasked() if path not in others))

    def _unmasked(self) -> list[Path]:
        """Raw files that are no masks of others."""
        from danlu.data import masks

        there = list(self.life.raw_files(self.life.nodes[0]))
        return masks.without(there) if catalogue.stated(self.life.loaded.recipe.task, "shape") == "masked" else there

    def learned(self) -> float:
        """Raw bytes of the rows to learn from: those of [data] path, less what is held out of them."""
        data, node = self.life.loaded.recipe.data, self.life.nodes[0]
        held_out = sum(getattr(data.split, name) for name in ("valid", "test") if not getattr(data, name))
        return (1 - held_out) * min(self.raw, self._raw_bytes(replace(node, raw=tuple(data.path))))

    @cache  # noqa: B019  as below
    def token_bytes(self) -> float:
        """Raw bytes of a token: as the base's tokenizer makes of the beginning, or as is usual."""
        if not (base := self.life.loaded.recipe.model.base):
            return _BYTES_PER_TOKEN
        from danlu.modalities.text import Text

        beginning = _beginning(self.life.raw_files(self.life.nodes[0])[0], _SAMPLE)
        return len(beginning.encode()) / max(1, len(Text.load(self.life.loaded.model(base)).encode(beginning)))

    @cache  # noqa: B019  one Sizes lives as long as one forecast
    def vocabulary(self) -> int:
        """Tokens that will be learned: what the recipe says, or what the beginning of each raw file lets expect."""
        from danlu.modalities.vocabulary.sample import auto_size

        wanted = self.life.loaded.recipe.tokenizer.vocab_size
        if wanted != "auto":
            return wanted
        paths = self.life.raw_files(self.life.nodes[0])
        looks = [_beginning(path, _LOOKED // len(paths) + 1) for path in paths]
        return auto_size(looks, int(0.9 * self.raw))

    def pictures(self) -> Any:
        """The pictures to learn from, as encoded ones are read, or as the first of a raw file is."""
        from danlu.data import pictured
        from danlu.modalities.image import Image

        if (folder := self.life.folders.get("encode")) is not None:
            return Image.load(folder)
        wanted = self.life.loaded.recipe.options.get("size", 0)
        if base := self.life.loaded.recipe.model.base:
            return Image.load(self.life.loaded.model(base)).adjusted(size=wanted)
        side, channels = pictured.first(self._unmasked())
        return Image(wanted or side, [0.5] * channels, [0.25] * channels)

    def columns(self) -> int:
        """Columns of a table to learn from: of the encoded one, or as many as the first line of a raw file has."""
        from danlu.data.formats import delimiter_of
        from danlu.data.sources import SourceFile, format_of

        if (folder := self.life.folders.get("encode")) is not None:
            return len(files.read_json(folder / "table.json")["columns"])
        path = self.life.raw_files(self.life.nodes[0])[0]
        with closing(SourceFile(path, path.name, "", format_of(path), "auto").lines()) as lines:
            _, first = next(lines, (1, ""))
        return max(1, first.count(delimiter_of(first)) - len(self.life.loaded.recipe.data.ignore))


def _beginning(path: Path, size: int) -> str:
    with path.open("rb") as file:
        return file.read(size).decode("utf-8", "ignore")


def _encode_of(life: Life, state: State) -> Any:
    return next(node for node in life.nodes if node.name == state.node.inputs["columns"])


def _cost(life: Life, state: State, size: Sizes, before: list[Cost]) -> Cost:
    """What a stage costs after those before it: one process runs them all, and gives little memory back."""
    stage, held = state.node.stage, max(cost.memory_mb for cost in before)
    beside = _BESIDE_MB if apart.supported() else 0
    if stage == "prepare":
        data = size.bytes(state)
        rate, shown = _rate(life.loaded.runs)
        basis = Basis(shown, *[text("plan.basis.bytes", size=f"{data / 1e6:,.1f}")] * 2)
        return Cost(0.2 + data / rate, max(held, 185 + beside + data * 12 / 1e6), data * 1.3 / 1e6, basis)
    if stage == "encode":
        data = size.bytes(state)
        basis = Basis(*[text("plan.basis.bytes", size=f"{data / 1e6:,.1f}")] * 3)
        return Cost(_encoding(state, size, data), max(held, 365 + data * 55 / 1e6), data * 1.3 / 1e6, basis)
    if stage in ("pretrain", "finetune"):
        return _training(life, state, size, read=held > 0)
    model = next((cost for cost in reversed(before) if cost.model), Cost())
    basis = Basis(*(text(f"plan.basis.{name}") for name in ("passes" if model.row else "nothing", "before", "usual")))
    disk = 1 if stage == "evaluate" else 15
    return Cost(_measuring(life, size, model), max(held + 30, _LEAST_MB), disk, basis, model=model.model)


def _encoding(state: State, size: Sizes, data: float) -> float:
    """Seconds to learn a vocabulary, where it is not taken over, and to encode."""
    learns = not {"tokenizer", "base"} & {*state.node.inputs, *state.node.external}
    merges = min(data, _LEARNED) / 1e6 * size.vocabulary() / _MERGING if learns else 0.0
    return (0.6 if learns else 0.1) + merges + data / _ENCODING


def _measuring(life: Life, size: Sizes, model: Cost) -> float:
    """Seconds to look at the held-out rows, and to write samples token by token, or to make pictures."""
    recipe = life.loaded.recipe
    if catalogue.stated(recipe.task, "makes"):
        led = (
            recipe.options.get("classes") and recipe.options.get("guidance", 1) != 1
        )  # seen with its class, and without
        return 0.5 + _PICTURES * recipe.options.get("steps", 1) * (2 if led else 1) * model.row
    held_out = recipe.data.split.test or recipe.data.split.valid or 1.0
    rows = held_out * size.raw / _BYTES_PER_TOKEN / recipe.model.context
    token = 4 * model.model / _TOUCHED + _LAYER * model.layers
    return 0.5 + rows * model.row + recipe.evaluate.samples * _SAMPLED * token


def _rate(runs: Path) -> tuple[float, str]:
    """Bytes per second that this machine's latest preparation read, and what is said of that."""
    for folder in sorted((runs / STORE).glob("prepare-*"), key=lambda p: p.stat().st_mtime, reverse=True):
        if (folder / "lineage.json").exists():
            facts = Lineage.read(folder)
            if facts.facts.get("bytes") and facts.made.get("seconds"):
                rate = float(facts.facts["bytes"]) / float(facts.made["seconds"])
                return rate, text("plan.basis.rate", rate=f"{rate / 1e6:.1f}")
    return _READING, text("plan.basis.usual_rate", rate=f"{_READING / 1e6:.1f}")


def _training(life: Life, state: State, size: Sizes, *, read: bool) -> Cost:
    """Measured: a few steps of the model that would be trained, on random tokens. To measure them is a part of it."""
    from danlu import adapt, device, tasks
    from danlu.models.architecture import build
    from danlu.randomness import generator
    from danlu.train.plan import Request, resolve
    from danlu.train.trial import Synthetic, stands_in

    started, where = time.monotonic(), device.use(life.loaded.recipe.system)
    shape, vocab, tokens = shape_of(life, state, size, where)
    config = state.node.config
    seen = min(shape.context, section.context) if (section := life.loaded.recipe.model).base else shape.context
    task, judged = stands_in(config["task"], shape, vocab, seen, config.get("options", {}))
    loader = Synthetic(size.row(state, seen), vocab, tokens, judged=judged)
    if picture := size.pictures() if _seen(config["task"]) else None:
        loader = Synthetic(1, 1, tokens, judged=True, picture=(picture.channels, picture.size, picture.size))
        task = tasks.load(config["task"])(picture, ("", ""), 1, config.get("options", {}))
    shape = task.shaped(shape) if judged else shape
    how: dict[str, Any] = {"device": where, "compile": False, "folder": Path(tempfile.gettempdir())}
    begins = life.loaded.recipe.begins(state.node.stage)
    request = Request(task, config["train"], loader, loader, begins, started, **how)  # type: ignore[arg-type]
    net = build(shape, generator(0, "forecast"))
    weights = sum(p.numel() for p in net.parameters())
    adapters = config.get("adapt") or adapt.short(config.get("tune", "full"))
    net = adapt.apply(net, adapters, 0).train().to(where)
    plan, trained = resolve(request, net), sum(p.numel() for p in net.parameters() if p.requires_grad)
    kept = _KEPT_MB if read and not apart.supported() else 0
    spent, memory = time.monotonic() - started, plan.memory_mb + _LOOKING_MB + kept
    passes = 2 + min(1.0, trained / weights)  # forward, back to the inputs, and to the weights that are trained
    row = plan.seconds_per_step / (plan.rows * plan.accumulate) / passes
    basis = _trained(life, plan)
    return Cost(spent + plan.seconds, memory, weights * 16 / 1e6, basis, spent + plan.seconds, weights, plan.depth, row)


def _trained(life: Life, plan: "Plan") -> Basis:
    """What the figures of a training come from."""
    from danlu import room

    devices = life.loaded.recipe.system.devices
    seen = "process" if plan.device == "cpu" and room.peak() else "held"
    others = "" if devices == 1 else " " + text("plan.basis.alone", devices=devices)
    pace = text("plan.basis.steps", steps=f"{plan.steps:,}", seconds=f"{plan.seconds_per_step:.3g}")
    return Basis(pace + others, text(f"plan.basis.{seen}") + others, text("plan.basis.weights"))


def shape_of(life: Life, state: State, size: "Sizes", where: str = "cpu") -> tuple[Any, int, int]:
    """(architecture, vocabulary, training tokens) of a training on a device that has not begun."""
    from danlu.train.size import Learned, architecture

    tokens, vocab = size.tokens(state)
    recipe, train = life.loaded.recipe, state.node.config["train"]
    first = recipe.training("pretrain") if state.node.name == "finetune" else train
    section = recipe.backbone
    if recipe.model.base:
        from danlu.folder import shape_of as stored

        shape = stored(life.loaded.model(recipe.model.base))
        if _seen(recipe.task):
            return shape.seeing(size.pictures().sizes), 0, tokens
        return shape, shape.tokens.vocab, tokens
    if _seen(recipe.task):
        return architecture(section, first, 0, tokens, where, size.pictures().sizes), 0, tokens
    if section.arch == "mlp":
        section = section.model_copy(update={"context": size.columns()})
    learned = Learned(recipe.task, recipe.options)
    return architecture(section, first, vocab, tokens, where, learned=learned), vocab, tokens
