"""Trained = saved = served: three ways to the same logits.

Shapes: T time · V vocabulary
"""

from pathlib import Path

import torch
from torch import Tensor

from danlu.adapt.fold import merged_state
from danlu.model import Model
from danlu.proof.certificate import Check
from danlu.proof.twin import Twin
from danlu.serve.slots import Slots

LIMIT = 1e-5  # of the largest logit, in float32
_AHEAD = 5  # tokens that the second of two sequences served together is ahead


@torch.no_grad()
def served(twin: Twin, weights: dict[str, Tensor], folder: Path) -> list[Check]:
    """The trained network, the folder that is saved and opened, and the engine's slots token by token."""
    net = twin.network().to(twin.device)
    net.load_state_dict(weights)
    ids = _longest(twin).to(twin.device)
    trained = net.eval()({"input_ids": ids[None]})[0]
    learned = (twin.task_name, twin.task.labels, twin.task.chosen)
    model = Model(net, twin.architecture, twin.task.processor, *learned)
    model.save_pretrained(folder, merged_state(net, weights))
    opened = Model.from_pretrained(folder, twin.device)
    saved = opened.net({"input_ids": ids[None]})[0]
    together = _beside(opened, ids) if opened.judges else _stepped(opened, ids)
    beside = _apart(together[: len(trained)], trained)
    return [Check("saved", _apart(saved, trained), LIMIT), Check("served", beside, LIMIT)]


def _longest(twin: Twin) -> Tensor:
    """The longest row that fits, (T,)."""
    batch = twin.loader().assemble([0])
    return batch["input_ids"][0][batch["segment_ids"][0] == 1]


def _beside(model: Model, ids: Tensor) -> Tensor:
    """Logits, (C,) or of each token and perhaps of padding (T, C), of a text that is judged beside a longer one."""
    longer = torch.cat([ids, ids[1:]])[: model.context]
    batch = model.processor.collate([{"input_ids": longer}, {"input_ids": ids}])
    return model.net({name: each.to(ids.device) for name, each in batch.items()})[1]


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
