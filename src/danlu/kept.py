"""Adapters that were kept alone, and the base that their folder names, as one model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from danlu import files
from danlu.adapt import peft
from danlu.adapt.fold import merge

if TYPE_CHECKING:
    from danlu.model import Model

Kind = TypeVar("Kind", bound="Model")
OURS = "danlu.json"  # the task and its labels, of which peft's files say nothing


def said(model: "Model") -> dict[str, Any]:
    """What stands in OURS of a folder of adapters."""
    own = {"task": model.task_name, "labels": list(model.task.labels), "options": dict(model.task.chosen)}
    return {"schema": files.SCHEMA, **own, "chat": model.taught_chat}


def opened(kind: "type[Kind]", folder: Path) -> "Kind":
    """The base that a folder of adapters names (by a path from there, or any name), with these folded in.

    Raises:
        UserError: E304, the base is not there; E301 or E330, the folder is damaged or holds what has no place.
    """
    config, _ = peft.read(folder)
    named = str(config.get("base_model_name_or_path") or "")
    base = kind.from_pretrained(folder / named if (folder / named).is_dir() else named)
    if (folder / OURS).exists():
        own = files.read_json(folder / OURS)
        base = base.for_task(own["task"], 0, own["labels"], own["options"])
        base.taught_chat = own["chat"]
    base.net = merge(peft.load(base.net, base.architecture, folder)).requires_grad_(True)
    return base
