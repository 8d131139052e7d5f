"""The same random weights twice: ours, and in the stock class of our config.json."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from danlu import models
from danlu.models.architecture import Architecture, build, computed
from danlu.nn.heads import HeadConfig
from danlu.nn.network import Network
from tests.models.stock import TOLERANCE, VOCAB, lift, randomised

CONTEXT = 96
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


@dataclass(frozen=True)
class Row:
    """A family at one shape: options of its preset, its head where it is another, values changed in its stacks."""

    family: str
    options: dict[str, Any]
    head: HeadConfig | None = None
    core: dict[str, Any] | None = None

    @property
    def architecture(self) -> Architecture:
        sizes = {"width": 64, "heads": 4} | self.options
        made = models.family(self.family).preset(
            VOCAB, CONTEXT, 3, **sizes | ({"image": 24} if self.family in ("vit", "ijepa") else {})
        )
        changes = self.core or {}
        made = replace(made, core=replace(made.core, **changes))
        if made.encoder is not None:
            made = replace(made, encoder=replace(made.encoder, core=replace(made.encoder.core, **changes)))
        return made if self.head is None else replace(made, head=self.head)


@dataclass
class Pair:
    ours: Network
    theirs: nn.Module
    architecture: Architecture
    family: Any  # the module that carries it


def pair(row: Row, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Both models of a row, computing in float64."""
    architecture = row.architecture
    name = models.carrier(architecture)
    assert name is not None
    lift(monkeypatch, name)
    family = models.family(name)
    theirs = stock(family, architecture)
    return Pair(network(architecture, family, theirs), theirs, architecture, family)


def stock_class(config: dict[str, Any]) -> Any:
    return getattr(transformers, config["architectures"][0])


def stock(family: Any, architecture: Architecture, seed: int = 0) -> nn.Module:
    """transformers' model of our config.json, random in every tensor."""
    config = family.to_hf(architecture, TOKENS)
    cls = stock_class(config)
    made = cls(cls.config_class(**config))
    if getattr(architecture.head, "tied", True) is False and config["model_type"] == "t5":  # ties whatever it is told
        made.lm_head.weight = nn.Parameter(made.lm_head.weight.detach().clone())
    return randomised(made, seed)


def written(theirs: nn.Module) -> dict[str, Tensor]:
    """The tensors as save_pretrained names them: some classes of transformers 5 name them otherwise in memory."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)  # type: ignore[operator]
        return load_file(Path(folder) / "model.safetensors")


def network(architecture: Architecture, family: Any, theirs: nn.Module) -> Network:
    made = build(architecture, torch.Generator()).double().eval()
    made.load_state_dict(family.LAYOUT.import_weights(written(theirs), architecture.head))
    return made


@torch.no_grad()
def answer(output: Any) -> Tensor:
    """What a stock model or ours gives, as one tensor."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple):
        return torch.cat([each.flatten() for each in output])
    for names in (("prediction_logits", "seq_relationship_logits"), ("start_logits", "end_logits")):
        if all(name in output for name in names):
            parts = [output[name] for name in names]
            return torch.stack(parts, -1) if names[0] == "start_logits" else torch.cat([p.flatten() for p in parts])
    found = next(
        (
            output[name]
            for name in ("logits", "logits_per_image", "pooler_output", "last_hidden_state")
            if name in output
        ),
        None,
    )
    assert isinstance(found, Tensor)
    return found


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@torch.no_grad()
def here(model: nn.Module, **batch: Tensor) -> Tensor:
    return answer(model(batch))


@torch.no_grad()
def there(model: nn.Module, *args: Tensor, **inputs: Tensor) -> Tensor:
    return answer(model(*args, **inputs))


def opens_in_both_directions(
    pair: Pair, folder: Path, theirs: Callable[[nn.Module], Tensor], batch: dict[str, Tensor]
) -> None:
    """Saved by us and opened by transformers, saved by it and opened by us; `theirs` calls the stock model."""
    layout, head = pair.family.LAYOUT, pair.architecture.head
    config = pair.family.to_hf(pair.architecture, TOKENS, dtype="float64")
    (folder / "config.json").write_text(json.dumps(config))
    save_file(layout.export_weights(pair.ours.state_dict(), head), folder / "model.safetensors", {"format": "pt"})
    opened, report = stock_class(config).from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert not any(report.values()), report
    assert difference(theirs(opened.eval()), here(pair.ours, **batch)) <= TOLERANCE

    pair.theirs.save_pretrained(folder / "theirs")  # type: ignore[operator]
    written = json.loads((folder / "theirs" / "config.json").read_text())
    architecture = models.by_model_type(written["model_type"]).from_hf(written)
    assert computed(architecture) == computed(pair.architecture)
    made = build(architecture, torch.Generator()).double().eval()
    made.load_state_dict(layout.import_weights(load_file(folder / "theirs" / "model.safetensors"), head))
    assert difference(here(made, **batch), theirs(pair.theirs)) <= TOLERANCE
