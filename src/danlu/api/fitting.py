"""`fit`: a model that is in memory through the stages of a recipe's data and the one training loop."""

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from danlu import adapt, files
from danlu.api import encoded, numbers, rows, wish
from danlu.api.outcome import History
from danlu.api.view import Notes, notes
from danlu.config import Train
from danlu.errors import UserError
from danlu.graph import Context, plain
from danlu.messages import text
from danlu.recipe import Loaded, resolved
from danlu.stages import pretrain
from danlu.stages.encode import content_hash
from danlu.train import checkpoint, session
from danlu.train.plan import Request

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.api.pretrained import Pretrained
    from danlu.config import Recipe
    from danlu.train.plan import Plan

KEY, TRAINING = "fit.json", "training"


@dataclass(frozen=True)
class Work:
    """All that a training of a model in memory needs: what was asked for, its rows as columns, where it lies."""

    model: "Pretrained"
    recipe: "Recipe"
    columns: Path
    room: Path
    view: Notes

    @property
    def train(self) -> Train:
        return self.recipe.training("finetune")

    def context(self) -> Context:
        """What the stage that trains would read."""
        config = {"task": self.model.task_name, "seed": self.recipe.seed, "train": self.train,
                  "context": self.recipe.model.context}  # fmt: skip
        loaded, out = Loaded(self.recipe, self.room / "recipe.toml"), self.room / TRAINING
        return Context(config, {"columns": self.columns}, out, loaded, self.view)

    def request(self) -> Request:
        """What a plan is made for; the model is on its device then."""
        context = self.context()
        device = context.use_machine()
        self.model.to(device)
        loaders = pretrain.loaders(context, self.model)
        how: dict[str, Any] = {"device": device, "compile": False}
        return Request(self.model.task, self.train, *loaders, self.model.begins, time.monotonic(), **how)


@contextlib.contextmanager
def opened(
    model: "Pretrained", train: Any, folder: str | Path | None, quiet: bool, given: dict[str, Any], call: str = "fit"
) -> Iterator[Work]:
    """The rows of a call as columns, and the model with a head for their labels.

    Raises:
        UserError: all that is wrong with the arguments, then all that is wrong with the rows.
    """
    train, given = _parted(rows.held(train), {name: rows.held(value) for name, value in given.items()})
    if model.quantized:
        raise UserError("E121", path=type(model).__name__)
    with notes(quiet=quiet) as view, _room(folder) as room, threads():
        recipe, columns = _data(model, train, given, room, view, call)
        model.grow(columns, recipe.seed)
        model.adopt(files.read_json(columns / "tokens.json")["labels"], recipe.options, recipe.seed)
        yield Work(model, recipe, columns, room, view)


def fit(model: "Pretrained", train: Any, folder: str | Path | None, quiet: bool, given: dict[str, Any]) -> History:
    """Train a model in place; arguments as of `Pretrained.fit`."""
    started = time.monotonic()
    with opened(model, train, folder, quiet, given) as work:
        _begin(work)
        result = _trained(work, started)
        model.begins = "trained" if model.begins == "random" else model.begins
        files.write_text(work.room / "recipe.toml", _resolved(work.recipe, result.plan, work.room))
        return History.read(work.room, result.plan, result.facts, kept=folder is not None)


def _parted(train: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Rows to train on and to watch it, of splits by their names (a DatasetDict)."""
    if not isinstance(train, Mapping) or "train" not in train:
        return train, given
    held_out = next((train[name] for name in ("validation", "valid", "dev") if name in train), None)
    return train["train"], {**({"valid": held_out} if held_out is not None else {}), **given}


@contextlib.contextmanager
def _room(folder: str | Path | None) -> Iterator[Path]:
    """Where a training lies: in a folder that stays, or in one that goes."""
    if folder is not None:
        path = Path(folder).resolve()
        path.mkdir(parents=True, exist_ok=True)
        with files.locked(path / "fit.lock"):
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="danlu-fit-") as name:
        yield Path(name).resolve()


@contextlib.contextmanager
def threads() -> Iterator[None]:
    """Inside, a call may set torch's threads; those of before afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- data ------------------------------------------------------------------------------------------------


def _data(
    model: "Pretrained", train: Any, given: dict[str, Any], room: Path, view: Notes, call: str
) -> tuple["Recipe", Path]:
    """The recipe of the call, and its rows as columns.

    Raises:
        UserError: all that is wrong with the arguments, then all that is wrong with the rows.
    """
    base, origin = room / "base", model.origin or room / "base"
    asked = {name: value for name, value in given.items() if name != "valid"}
    wish.recipe(call, model.asked_for, origin, {"path": "?"}, asked)  # a wrong argument is said before a file is read
    if (numbered := numbers.given(train)) is not None:
        if model.unread:
            raise UserError("E336")
        return _numbers(model, numbered, given, room, view, call)
    files.remove(base)
    base.mkdir()
    encoded.describe(model, base)
    held_out = {"valid": rows.written(given["valid"], room, "valid")} if given.get("valid") is not None else {}
    reading = encoded.found(model.task_name, rows.written(train, room, "train"), given, {})
    model.reading = {name: value for name, value in reading.items() if name not in ("path", "valid")}
    once = {"split": {"test": 0.0}} if "split" not in given else {}
    recipe = wish.recipe(call, model.asked_for, origin, {**once, **reading, **held_out}, asked)
    most = _most(model, recipe, "context" in given)
    words = model.unread.wanted if model.unread else None
    made = encoded.encode(wish.without_tuning(wish.with_context(recipe, most)), base, room, view, words)
    fitting = most if "context" in given or not _fits(model) else encoded.room_for(made["encode"], most)
    view.line(_told(made["prepare"]))
    return wish.with_context(recipe, fitting), made["encode"]


def _numbers(
    model: "Pretrained", train: Iterator[Any], given: dict[str, Any], room: Path, view: Notes, call: str
) -> tuple["Recipe", Path]:
    """The same for rows that are numbers already: nothing is read, so that nothing can be said of how."""
    idle = [name for name in given if wish.homes(model.task_name)[name] == "data" and name not in ("valid", "split")]
    if idle:
        reason = text("recipe.no_effect", key=idle[0], why="input_ids")
        raise UserError("E106", where=f"{call}(...)", key=idle[0], reason=reason)
    asked = {name: value for name, value in given.items() if name != "valid"}
    recipe = wish.recipe(call, model.asked_for, model.origin or room, {"path": "?"}, asked)
    parts = {"train": train}
    if given.get("valid") is not None:
        held_out = numbers.given(given["valid"])
        if held_out is None:
            raise UserError("E106", where=f"{call}(...)", key="valid", reason=text("api.alike"))
        parts["valid"] = held_out
    out = room / "encode"
    files.remove(out)
    cut = numbers.write(model, parts, recipe.data.split.valid, out)
    if cut:
        view.line(text("encode.cut", count=f"{cut:,}", limit=model.context))
    most = _most(model, recipe, "context" in given)
    fitting = most if "context" in given or not _fits(model) else encoded.room_for(out, model.context)
    counts = {name: each["rows"] for name, each in files.read_json(out / "tokens.json")["splits"].items()}
    view.line(_counted_rows(sum(counts.values()), counts))
    return wish.with_context(recipe, fitting), out


def _fits(model: "Pretrained") -> bool:
    """Whether the task reads each row as a whole, or in windows, so that a context can be chosen that fits."""
    return model.task.long in ("cut", "windows")


def _most(model: "Pretrained", recipe: "Recipe", told: bool) -> int:
    """How many tokens of a row are seen, at most."""
    usual = recipe.model.context if told or not _fits(model) else encoded.LONGEST
    return min(model.context, usual)


def _told(prepared: Path) -> str:
    funnel = files.read_json(prepared / "funnel.json")
    return _counted_rows(funnel["read"], funnel["splits"])


def _counted_rows(read: int, splits: Mapping[str, int]) -> str:
    return text("api.rows", read=f"{read:,}", train=f"{splits['train']:,}", valid=f"{splits['valid']:,}")


# --- training --------------------------------------------------------------------------------------------


def _begin(work: Work) -> None:
    """Note what is trained; in a folder of an earlier call, that it is the same.

    Raises:
        UserError: E140, the folder holds another training.
    """
    model, recipe, columns, room = work.model, work.recipe, work.columns, work.room
    asked = {"seed": recipe.seed, "train": plain(work.train), "tune": plain(recipe.finetune)}
    now = {
        "schema": files.SCHEMA,
        "asked": hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest(),
        "rows": content_hash(columns, work.model.processor.file),
        "weights": files.tensors_hash(model.net.state_dict()),
    }
    if (room / KEY).exists():
        before = files.read_json(room / KEY)
        if other := [name for name in now if before.get(name) != now[name]]:
            raise UserError("E140", path=room, names=", ".join(text(f"api.other.{name}") for name in other))
    files.write_json(room / KEY, now)


_DECIDED = ("steps", "optimizer", "lr", "weight_decay", "precision", "attention", "dropout")


def _resolved(recipe: "Recipe", plan: "Plan", room: Path) -> str:
    """The recipe with all that was decided: `danlu run` comes to the same weights, where all of them were trained."""
    whole = wish.without_tuning(recipe).model_copy(update={"train": recipe.training("finetune")})
    pins: dict[tuple[str, ...], Any] = {(whole.trained, name): getattr(plan, name) for name in _DECIDED}
    return resolved(Loaded(whole, room / "recipe.toml"), room, pins)


def _trained(work: Work, started: float) -> session.Result:
    """The loop; the model has the weights that it selected, or where it was stopped those it had reached."""
    model, context = work.model, work.context()
    context.out.mkdir(exist_ok=True)
    free, form = {name: p.requires_grad for name, p in model.net.named_parameters()}, model.net.training
    _adapt(work)
    weights: Mapping[str, Tensor] | None = None
    try:
        result = pretrain.learn(context, model, started, context.use_machine(), model.begins)
        weights = result.weights
        return result
    except session.Interrupted as stopped:
        saved, _ = checkpoint.newest(context.out / session.CHECKPOINTS)
        weights = saved.weights if saved else None
        raise KeyboardInterrupt(str(stopped)) from stopped
    finally:
        model.settle(weights, free)
        model.net.train(form)


def _adapt(work: Work) -> None:
    """Tune what the call says; a new head is trained in any case."""
    model, tune, new = work.model, work.recipe.finetune, work.model.untrained
    if tune is not None:
        model.net = adapt.apply(model.net, tune.adapt or adapt.short(tune.tune), work.recipe.seed)
    if new:
        model.net.head.requires_grad_(True)
    if not any(p.requires_grad for p in model.net.parameters()):
        raise UserError("E144")
