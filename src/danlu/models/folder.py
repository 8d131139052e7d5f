"""A stock model folder as a network: what its config.json says, filled with what its files hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danlu import models
from danlu.errors import UserError
from danlu.messages.reasons import because
from danlu.models import weights
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
    config = read_config(folder / CONFIG)
    weights.refuse_code(config, folder / CONFIG)
    family = models.by_model_type(config.get("model_type", ""))
    architecture = family.from_hf(config)
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
        raise UserError("E301", path=path, reason=because(error)) from error
    if not isinstance(config, dict):
        raise UserError("E301", path=path, reason=type(config).__name__)
    return config


def fill(network: torch.nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Give a network its weights, in its own dtypes.

    Raises:
        UserError: E308, some are missing, misshapen, or have no place.
    """
    wanted = network.state_dict()
    wrong = [n for n, t in wanted.items() if n not in tensors or tensors[n].shape != t.shape] + [
        n for n in tensors if n not in wanted
    ]
    if wrong:
        shown = [f"{n}: {_shape(tensors.get(n))}, {_shape(wanted.get(n))}" for n in wrong[:3]]
        raise UserError("E308", path=folder / weights.FILE, count=len(wrong), evidence=shown)
    network.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})


def _shape(tensor: Tensor | None) -> str:
    return "—" if tensor is None else "×".join(map(str, tensor.shape)) or "scalar"
