"""Encoded rows -> a model that learned from them alone (or from a base model on)."""

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from danlu import device as devices
from danlu import files, ranks, room
from danlu.errors import UserError
from danlu.messages import text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from danlu.config import Begins
    from danlu.data.loader import Loader
    from danlu.graph import Context
    from danlu.life import Node
    from danlu.model import Model
    from danlu.recipe import Loaded
    from danlu.tasks.task import Task
    from danlu.train.session import Result

ADAPTERS = "adapters"  # where a tuning keeps them beside its model
VERSION = 5
RESUMABLE = True
RANKS = True  # all ranks of a run take part


def run(context: "Context") -> None:
    """Train and write a model folder into context.out; its output hash is that of the weights."""
    from danlu import tasks
    from danlu.model import Model
    from danlu.train import size
    from danlu.train.plan import Plan

    started, config = time.monotonic(), context.config
    device = context.use_machine()
    if "base" in context.inputs:
        model = from_base(context)
    else:
        kind: Any = tasks.load(config["task"])
        processor = kind.modality().load(context.inputs["columns"])
        told = files.read_json(context.inputs["columns"] / "tokens.json")
        tokens = told["splits"]["train"]["tokens"]
        begun = Plan.read(context.out)
        section = config["model"].model_copy(update={"context": processor.length(config["context"])})
        section = section.model_copy(update={"depth": begun.depth} if begun else {})
        options = config.get("options", {}) | told["learned"]
        sized = partial(
            size.architecture, train=config["train"], vocab=processor.vocab_size, tokens=tokens, where=device,
            seen=processor.sizes, learned=size.Learned(config["task"], options),
        )  # fmt: skip
        depth = ranks.agreed(lambda: sized(section).depth)  # "auto" asks how fast the machine is
        architecture = sized(section.model_copy(update={"depth": depth}))
        learned = (config["task"], config["seed"], told["labels"], options)
        model = Model.from_architecture(architecture, processor, *learned)
    train(context, model, started, device, context.loaded.recipe.begins("pretrain"))


def look(node: "Node", loaded: "Loaded", paths: "Sequence[Path]") -> None:
    """Look at what a training needs beside its rows.

    Raises:
        UserError: E136, the device does not have the precision; what `folder.check` raises of base and teacher, and
            `folder.suits` of the base; E350, it cannot see such pictures; E627, the teacher has learned another task.
    """
    from danlu import folder

    if node.config["train"].precision == "fp8":
        devices.multiplies("fp8", loaded.recipe.system.device)
    if not loaded.recipe.model.base:
        _suits(loaded.recipe.backbone.arch, node.config["task"], node.config.get("options", {}))
    for path in map(loaded.model, node.external.values()):
        folder.check(path)
    if "base" in node.external:
        base, options = loaded.model(node.external["base"]), node.config.get("options", {})
        folder.suits(base, node.config["task"], options)
        folder.shape_of(base).seeing({"image": options.get("size", 0)})
    if "teacher" in node.external:
        teacher = loaded.model(node.external["teacher"])
        if (task := folder.task_of(teacher)) != node.config["task"]:
            raise UserError("E627", path=teacher, found=task, task=node.config["task"])


def _suits(arch: str, task: str, options: dict[str, Any]) -> None:
    """Raise UserError E106 where a form of text has no head for a task that judges."""
    from danlu import models, tasks
    from danlu.modalities.text import Text
    from danlu.train.trial import Vocabulary

    kind: Any = tasks.load(task)
    if not kind.judges or kind.modality() is not Text:
        return
    try:
        kind(Vocabulary(300, kind.markers), ("", ""), 64, options).shaped(models.preset(arch, 300, 64, 1))
    except UserError as error:
        if error.code != "E309":
            raise
        reason = text("recipe.other_form", arch=arch, task=task)
        raise UserError("E106", where="model.arch", key="model.arch", reason=reason) from error


def from_base(context: "Context") -> "Model":
    """The base model with the task of this stage.

    Raises:
        UserError: E121, its weights are 8-bit.
    """
    from danlu.model import Model

    base = Model.from_pretrained(context.inputs["base"])
    if base.quantized:
        raise UserError("E121", path=context.inputs["base"])
    base = base.grown(type(base.processor).load(context.inputs["columns"]), context.config["seed"])
    told, config = files.read_json(context.inputs["columns"] / "tokens.json"), context.config
    options = config.get("options", {}) | told["learned"]
    return base.for_task(config["task"], config["seed"], told["labels"], options)


def check(config: dict[str, Any]) -> None:
    """Raise UserError E111 where there is no such task."""
    from danlu import tasks

    tasks.check(config["task"])


def train(context: "Context", model: "Model", started: float, device: str, begins: "Begins") -> None:
    """What pretrain and finetune share: the loop on a model's network, on a device, then its folder."""
    result = learn(context, model, started, device, begins)
    if ranks.rank() == 0:
        save(context, model, result.weights)


def learn(context: "Context", model: "Model", started: float, device: str, begins: "Begins") -> "Result":
    """The loop on a model's network: the weights that it selects, and what it noted in context.facts."""
    from danlu.train.plan import Request
    from danlu.train.session import fit

    config = context.config
    model.taught_chat = model.taught_chat or _chats(context)
    packed = loaders(context, model)
    if packed[0].dropped and not len(packed[0]):
        raise UserError("E122", rows=packed[0].rows, context=packed[0].limit)
    if packed[0].dropped:
        count = {"dropped": f"{packed[0].dropped:,}", "rows": f"{packed[0].rows:,}", "context": packed[0].limit}
        context.view.line(text("train.too_long", **count))
    model.to(device)
    system = context.system
    wishes: dict[str, Any] = {"parallel": system.parallel, "device": device, "compile": system.compile}
    request = Request(_taught(context, model.task), config["train"], *packed, begins, started, **wishes)
    model.net.train()
    sample = _sampler(model, config["train"].sample)
    result = fit(request, model.net, context.out, config["seed"], context.view, sample)
    room.give_back()
    core = model.architecture.core
    shape = {"depth": model.architecture.depth, "width": core.dim, "vocabulary": model.processor.vocab_size}
    shape["choices"] = model.task.choices[1]
    context.facts |= result.facts | {"parameters": sum(p.numel() for p in model.net.parameters())} | shape
    return result


def _taught(context: "Context", task: "Task") -> "Task":
    """The task, with its teacher where it has one."""
    from danlu.model import Model
    from danlu.tasks.answers import teacher

    if "teacher" not in context.inputs:
        return task
    return teacher.beside(task, Model.from_pretrained(context.inputs["teacher"]), context.config["distill"])


def _chats(context: "Context") -> bool:
    """Whether answers of chats are learned: then the model speaks the template from now on."""
    told = files.read_json(context.inputs["columns"] / "tokens.json")
    return context.config["task"] == "instruction" and bool(told.get("chat"))


def save(context: "Context", model: "Model", weights: dict[str, Any]) -> None:
    """Write the model folder with the selected weights, adapters folded in."""
    from danlu import kept
    from danlu.adapt import peft
    from danlu.adapt.fold import merged_state

    if context.config.get("keep_adapters"):
        model.net.float().load_state_dict(weights)
        folder = context.out / ADAPTERS
        peft.save(model.net, model.architecture, folder, os.path.relpath(context.inputs["base"], folder))
        files.write_json(folder / kept.OURS, kept.said(model))
    weights = merged_state(model.net, weights)
    model.save_pretrained(context.out, weights)
    files.write_json(context.out / "metrics.json", {"schema": files.SCHEMA, **context.facts})
    context.output_hash = files.tensors_hash(weights)


def loaders(context: "Context", model: "Model") -> tuple["Loader", "Loader | None"]:
    """The rows to train on, and those held out, packed."""
    from danlu.data.columns import Columns
    from danlu.data.loader import Loader

    root = context.inputs["columns"] / "columns"
    length = min(model.context, model.processor.length(context.config["context"]))
    made = [
        Loader(Columns(root / split), length, long=model.task.long, ahead=model.task.ahead, seed=context.config["seed"])
        for split in ("train", "valid")
    ]
    return made[0], made[1] if len(made[1]) else None


def _sampler(model: "Model", prompt: str | None) -> Any:
    """A function that continues the recipe's sample text with the network as it is now."""
    if not prompt or not model.task.ahead:  # a recipe that only masks and classifies is refused the key
        return None
    from dataclasses import replace

    def sample() -> str:
        training = model.net.training
        model.net.eval()
        made = model.predict(prompt, replace(model.usual, max_tokens=48))
        model.net.train(training)
        return (prompt + made).replace("\n", "⏎")

    return sample
