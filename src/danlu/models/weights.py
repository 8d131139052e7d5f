"""The tensors of a model folder: one safetensors file, or several with an index. Nothing in a folder is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from danlu import files
from danlu.errors import UserError
from danlu.messages.reasons import because

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names in the files.

    Raises:
        UserError: E301 a file is missing or damaged; E304 no weights; E325 only pickled weights, which can run code;
            E326 the index and its files do not agree.
    """
    if (folder / FILE).exists():
        return files.read_tensors(folder / FILE)
    if (folder / INDEX).exists():
        return _parts(folder)
    pickled = sorted(path for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        raise UserError("E325", path=pickled[0], folder=folder)
    raise UserError("E304", path=folder)


def _parts(folder: Path) -> dict[str, Tensor]:
    """The tensors of every file that the index names."""
    path = folder / INDEX
    try:
        index = files.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError("E301", path=path, reason=because(error)) from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(_plain(name) for name in places.values()):
        raise UserError("E301", path=path, reason="weight_map")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        part = files.read_tensors(folder / name)
        told = {tensor for tensor, place in places.items() if place == name}
        if wrong := sorted(told ^ set(part)):
            raise UserError("E326", path=folder / name, count=len(wrong), names=", ".join(wrong[:3]))
        tensors |= part
    return tensors


def _plain(name: object) -> bool:
    """A file beside the index, not a path that leads elsewhere."""
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def refuse_code(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a folder whose model is made by code that lies in it.

    Raises:
        UserError: E327.
    """
    if named := config.get("auto_map"):
        raise UserError("E327", path=path, names=", ".join(map(str, named)))
