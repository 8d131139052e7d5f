"""A stock model folder as a network: what its config.json says, filled with what its files hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from danlu import models
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.models import foreign, weights
from danlu.models.architecture import Architecture, build
from danlu.nn.heads import HeadConfig
from danlu.nn.network import Network

CONFIG = "config.json"


def open_network(
    folder: Path, generator: torch.Generator, head: HeadConfig | None = None
) -> tuple[Network, Architecture]:
    """The network of a folder, of any family; its text, image or sound is another's to prepare.

    With `head`, the folder's backbone under that head, whose first weights are drawn from `generator`.

    Raises:
        UserError: E301 a damaged file, E308 and E321 tensors that do not fit, E320 and E322 a model that danlu does not
            carry, E325 pickled weights, E327 code in the folder.
    """
    family, architecture = described(read_config(folder / CONFIG), folder / CONFIG)
    if head is not None:
        architecture = replace(architecture, head=head)
    network = build(architecture, generator).eval()
    tensors = family.LAYOUT.import_weights(weights.read(folder), architecture.head)
    if head is not None:
        own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("head.")}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")} | own
    fill(network, tensors, folder)
    return network, architecture


def read_config(path: Path) -> dict[str, Any]:
    """Raises UserError E301 where it is missing or no table."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError("E301", where=where, path=path, reason=because(error)) from error
    if not isinstance(config, dict):
        raise UserError("E301", path=path, reason=type(config).__name__)
    return config


def described(config: Mapping[str, Any], path: Path) -> tuple[ModuleType, Architecture]:
    """The family of a config.json, and the architecture that it describes; `path` is where it was read.

    Raises:
        UserError: E320 it asks for what danlu does not carry, E322 another family, E327 code of its own, E329 it lacks
            something; each with the line.
    """
    try:
        weights.refuse_code(config, path)
        family = models.by_model_type(config.get("model_type", ""))
        return family, family.from_hf(config)
    except UserError as error:
        if error.where != "config.json":
            raise
        key = error.fields.get("key", "model_type")
        raise UserError(error.code, where=foreign.place(path, key), evidence=error.evidence, **error.fields) from error


def fill(network: torch.nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Give a network its weights, in its own dtypes.

    Raises:
        UserError: as of `fit`; E335, a value is none that can be computed with.
    """
    wanted = network.state_dict()
    fit(wanted, tensors, folder)
    if broken := next((name for name, tensor in tensors.items() if _beyond(tensor)), None):
        raise UserError("E335", path=folder / weights.FILE, name=broken)
    network.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})


def _beyond(tensor: Tensor) -> bool:
    """Whether it holds what is not finite, or whose square is not: a flipped bit of an exponent makes such."""
    if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not tensor.numel():
        return False
    low, high = (each.float() for each in tensor.aminmax())
    return not bool((low.square() + high.square()).isfinite())


def fit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Compare names and shapes of a folder's tensors with those that a network has; their values may be meta.

    Raises:
        UserError: E308, some are missing, misshapen, or have no place; E332, the head alone is missing.
    """
    wrong = [n for n, t in wanted.items() if n not in tensors or tensors[n].shape != t.shape] + [
        n for n in tensors if n not in wanted
    ]
    if wrong:
        shown = [f"{n}: {_shape(tensors.get(n))}, {_shape(wanted.get(n))}" for n in wrong[:3]]
        if all(name.startswith("head.") and name not in tensors for name in wrong):
            stock = ", ".join(read_config(folder / CONFIG).get("architectures") or ("-",))
            where = foreign.place(folder / CONFIG, "architectures")
            raise UserError("E332", where=where, evidence=shown, path=folder / weights.FILE, stock=stock)
        raise UserError("E308", path=folder / weights.FILE, count=len(wrong), evidence=shown)


def _shape(tensor: Tensor | None) -> str:
    return "—" if tensor is None else "×".join(map(str, tensor.shape)) or "scalar"
