"""The tensors of a model folder: one safetensors file, or several with an index. Nothing in a folder is ever run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from danlu import files
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.models.foreign import place

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names in the files.

    Raises:
        UserError: E301 a file is missing or damaged; E304 no weights; E325 only pickled weights, which can run code;
            E326 the index and its files do not agree.
    """
    return _all(folder, files.read_tensors)


def shapes(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names in the files, as meta tensors: of the files only their headers are read.

    Raises:
        UserError: those of `read`.
    """
    return _all(folder, _headed)


def _headed(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file without their values; safetensors compares its header with its length.

    Raises:
        UserError: E301, the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
            return {name: torch.empty(each.get_shape(), device="meta") for name, each in told.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError("E301", path=path, reason=because(error)) from error


def _all(folder: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    if (folder / FILE).exists():
        return read(folder / FILE)
    if (folder / INDEX).exists():
        return _parts(folder, read)
    pickled = sorted(path for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        raise UserError("E325", path=pickled[0], folder=folder)
    raise UserError("E304", path=folder)


def _parts(folder: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
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
        part = read(folder / name)
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
        raise UserError("E327", where=place(path, "auto_map"), path=path, names=", ".join(map(str, named)))
