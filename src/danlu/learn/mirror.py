"""One batch through both engines in float64: danlu's own, in torch, and the one of NumPy that can be read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from danlu import models
from danlu.errors import UserError
from danlu.model import Model
from danlu.models.architecture import Architecture
from danlu.nn.heads import VocabularyConfig
from danlu.nn.masks import segment_positions
from danlu.nn.positions import Rotary, inverse_frequencies, magnitude, rotation
from danlu.scratch.gpt import GPT, Shape
from danlu.scratch.losses import cross_entropy

Batch = dict[str, Tensor]
TOLERANCE = 1e-9  # relative; in float64 the engines differ by rounding alone, about 1e-14 for a small model
# How a part of danlu's network is called in the engine of NumPy; applied in this order.
_NAMES = {
    "core.": "",
    ".attention.norm": ".norm1",
    ".attention.inner": ".attention",
    ".mlp.norm": ".norm2",
    ".mlp.inner": ".mlp",
    "embed.tokens": "embed",
    "head.output": "head",
}
_PARTS = frozenset(("tokens", "norm", "inner", "q", "k", "v", "o", "q_norm", "k_norm", "gate", "up", "down"))


@dataclass(frozen=True)
class Agreement:
    """How far one array of the two engines is apart: max |a - b| / max |b|, b being NumPy's."""

    kind: str  # loss | activation | gradient (of a parameter) | activation gradient
    name: str
    shape: tuple[int, ...]
    difference: float


def batch_of(model: Model, text: str) -> Batch:
    """A text, cut to the model's context, as one row: input_ids and labels (1, T)."""
    ids = [model.processor.end_id, *model.processor.encode(text)][: model.context + 1]
    row = torch.tensor([ids])
    return {"input_ids": row[:, :-1], "labels": row[:, 1:]}


def mirror(model: Model, batch: Batch) -> list[Agreement]:
    """Every activation and gradient of one batch, from both engines, in the order in which they are computed.

    A batch holds input_ids and labels (B, T), and may hold position_ids and segment_ids (B, T). The model is not
    changed.

    Raises:
        UserError: E324, it is not in Qwen3's form, or quantized.
    """
    if model.quantized or models.carrier(model.architecture) != "qwen3":
        raise UserError("E324")
    net = copy.deepcopy(model.net).double().eval()
    gpt = twin(net, model.architecture)
    outputs, loss = _torch_pass(net, model, batch)
    mirrored = _numpy_pass(gpt, batch)
    found = [_agreement("loss", "loss", loss, np.asarray(mirrored))]
    return found + _activations(outputs, gpt) + _gradients(net, gpt)


def twin(net: nn.Module, architecture: Architecture) -> GPT:
    """The same model in the engine of NumPy, with the same weights and the same rotary angles."""
    core, head = architecture.core, architecture.head
    assert isinstance(head, VocabularyConfig)
    shape = Shape(architecture.tokens.vocab, core.dim, core.layers, core.heads, core.kv_heads, core.head_dim,
                  core.hidden, eps=core.norm_eps, tied=head.tied)  # fmt: skip
    gpt = GPT(shape, np.random.default_rng(0))
    gpt.load({ours(name): p.detach().numpy() for name, p in net.named_parameters()})
    assert isinstance(core.position, Rotary)
    gpt.rotary = _angles(core.position, core.head_dim)
    return gpt


def ours(name: str) -> str:
    """ "core.blocks.0.mlp.inner.up" -> "blocks.0.mlp.up"."""
    for theirs, mine in _NAMES.items():
        name = name.replace(theirs, mine)
    return name


def _angles(rotary: Rotary, head_dim: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """danlu's own angles, which are rounded to fp32 as in all models of this form: a constant of the model."""

    def turn(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        frequencies = inverse_frequencies(rotary, head_dim, local=False)
        cos, sin = rotation(frequencies, torch.from_numpy(positions), magnitude(rotary, False), torch.float64)
        return cos[:, :, 0, : head_dim // 2].numpy(), sin[:, :, 0].numpy()  # (B, T, E/2) each

    return turn


def _torch_pass(net: nn.Module, model: Model, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """danlu's forward and backward: the output of every part that also stands in the other engine, and the loss."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        return hook

    hooks = [part.register_forward_hook(keep(name)) for name, part in net.named_modules() if _stands_alone(name)]
    loss = model.task.loss(net, batch)["loss"] / model.task.counts(batch)["loss"]
    loss.backward()
    for hook in hooks:
        hook.remove()
    return outputs, loss


def _stands_alone(name: str) -> bool:
    """Embedding, blocks, their linears and norms, the last norm; not the sums and dropouts around them."""
    last = name.rpartition(".")[2]
    return last.isdigit() or last in _PARTS


def _numpy_pass(gpt: GPT, batch: Batch) -> float:
    """The other engine's forward and backward; the loss."""
    segments, positions, mask = batch.get("segment_ids"), batch.get("position_ids"), None
    if segments is not None:
        positions = segment_positions(segments) if positions is None else positions
        mask = (segments[:, :, None] == segments[:, None, :]).numpy()
    logits = gpt(batch["input_ids"].numpy(), None if positions is None else positions.numpy(), mask)
    loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), batch["labels"].numpy().reshape(-1))
    loss.backward()
    return float(loss.data)


def _activations(outputs: dict[str, Tensor], gpt: GPT) -> list[Agreement]:
    layers, found = dict(gpt.modules()), []
    for name, output in outputs.items():
        other = layers[ours(name)].output
        assert output.grad is not None and other.grad is not None
        for kind, a, b in (("activation", output, other.data), ("activation gradient", output.grad, other.grad)):
            if name.endswith(("q_norm", "k_norm")):
                b = b.swapaxes(1, 2)  # (B, H, T, E) -> (B, T, H, E)
            found.append(_agreement(kind, name, a, b))
    return found


def _gradients(net: nn.Module, gpt: GPT) -> list[Agreement]:
    found, own = [], gpt.parameters()
    for name, parameter in net.named_parameters():
        other = own[ours(name)]
        assert parameter.grad is not None and other.grad is not None
        found.append(_agreement("gradient", name, parameter.grad, other.grad))
    return found


def _agreement(kind: str, name: str, a: Tensor, b: np.ndarray) -> Agreement:
    theirs = a.detach().numpy()
    if theirs.shape != b.shape:
        raise ValueError(f"{kind} of {name} is {theirs.shape} in torch and {b.shape} in NumPy")
    difference = float(np.abs(theirs - b).max() / (np.abs(b).max() or 1.0))
    return Agreement(kind, name, b.shape, difference)
