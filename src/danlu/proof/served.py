"""Trained = saved = served: three ways to the same logits.

Shapes: T time · V vocabulary
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from danlu.adapt.fold import merged_state
from danlu.model import Model
from danlu.nn.network import DECODER
from danlu.proof.certificate import Check
from danlu.proof.gradients import numbers_of
from danlu.proof.twin import Twin
from danlu.serve.slots import Slots

LIMIT = 1e-5  # of the largest logit, in float32
_AHEAD = 5  # tokens that the second of two sequences served together is ahead


@torch.no_grad()
def served(twin: Twin, weights: dict[str, Tensor], folder: Path) -> list[Check]:
    """The trained network, the folder that is saved and opened, and the engine's slots token by token."""
    net = twin.network().to(twin.device)
    net.load_state_dict(weights)
    row = {name: each.to(twin.device) for name, each in _longest(twin).items()}
    trained = _answer(net.eval(), _alone(row), 0)
    model = Model(net, twin.architecture, twin.task)
    model.save_pretrained(folder, merged_state(net, weights))
    opened = Model.from_pretrained(folder, twin.device)
    saved = _answer(opened.net, _alone(row), 0)
    together = _stepped(opened, row["input_ids"]) if opened.task.ahead else _beside(opened, row)
    beside = _apart(together[: len(trained)], trained)
    return [Check("saved", _apart(saved, trained), LIMIT), Check("served", beside, LIMIT)]


def _longest(twin: Twin) -> dict[str, Tensor]:
    """What the network reads of the longest row that fits, (T,) each."""
    batch = twin.task.posed(twin.loader().assemble([0]))
    names = [name for name in ("input_ids", "values", DECODER + "input_ids") if name in batch]
    read = {name: batch[name][0][batch[numbers_of(name, batch)][0] == 1] for name in names}
    drawn = {name: batch[name][0] for name in ("level", "latent") if name in batch}
    return read | drawn | ({"pixel_values": batch["pixel_values"][0].float()} if "pixel_values" in batch else {})


def _alone(row: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each[None] for name, each in row.items()}


def _beside(model: Model, row: dict[str, Tensor]) -> Tensor:
    """Logits, (C,) or of each token and perhaps of padding (T, C), of a row that is judged beside a longer one.

    Rows of tables are all of one length, and so are pictures.
    """
    other = (
        row
        if {"values", "pixel_values"} & row.keys()
        else {name: torch.cat([t, t[1:]])[: model.context] for name, t in row.items()}
    )
    batch = model.processor.collate([other, row])
    return _answer(model.net, {name: each.to(model.net.device) for name, each in batch.items()}, 1)


def _answer(net: nn.Module, batch: dict[str, Tensor], row: int) -> Tensor:
    """What a network says of one row; of one with two answers, that of its words."""
    said = net(batch)
    found: Tensor = (said[0] if isinstance(said, tuple) else said)[row]
    return found


def _stepped(model: Model, ids: Tensor) -> Tensor:
    """Logits (T, V) as the engine makes them: two slots share each step, the second is ahead of the first."""
    slots, tokens = Slots(model.network, 2, model.context), ids.tolist()
    behind, ahead = slots.take(), slots.take()
    made: dict[int, Tensor] = {}
    start = min(_AHEAD, len(tokens) - 1)
    if start:
        slots.read(ahead, tokens[:start], start=0)
    for at in range(len(tokens) - start):
        step = slots.step([behind, ahead], [tokens[at], tokens[at + start]], [at, at + start])
        made |= {at: step[0]} if at < start else {}
        made[at + start] = step[1]
    return torch.stack([made[at] for at in sorted(made)])


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())
