"""Steps of a throw-away model on random rows: what a training costs before there is anything to train."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch

from danlu import catalogue, device, tasks
from danlu.config import Train
from danlu.data.loader import IGNORE, WHOLE
from danlu.models.architecture import Architecture, build
from danlu.randomness import generator
from danlu.tasks.task import Task
from danlu.train import cost

_VOCAB, _CONTEXT = 4096, 256
_DEPTHS = {device.CPU: 3, "": 12}  # of the model that is tried: one that minutes can feed there


class Vocabulary:
    """A processor of which only the size matters, and that control tokens stand at its end."""

    pad_id = end_id = 0

    def __init__(self, size: int, control: Sequence[str] = ()):
        self.vocab_size = size
        self.control = {name: max(size - 1 - place, 1) for place, name in enumerate(control)}

    def framed(self, value: str) -> dict[str, list[int]]:
        return {"input_ids": []}

    def token_bytes(self) -> list[int]:
        return [4] * self.vocab_size


class Synthetic:
    """A loader of random tokens, or cells of a table, in the shape of the real one; judged rows have a label each.

    `picture` is the shape of pixels that each has, and of these some have one class and some another; and a box.
    """

    whole = ()

    def __init__(self, context: int, vocab: int, tokens: int, *, judged: bool = False, picture: tuple[int, ...] = ()):
        self.share = WHOLE
        self.context, self.vocab, self.predictions, self.judged = context, vocab, tokens, judged
        self.picture = picture
        self.random = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return max(1, -(-self.predictions // self.context))

    padding = 0.0

    def train(self, step: int, micro: int, shape: Any) -> dict[str, Any]:
        rows = self.share.of(shape.rows)
        size = (max(1, rows.stop - rows.start), self.context)
        ids = torch.randint(self.vocab, size, generator=self.random)
        positions = torch.arange(self.context).expand(size).contiguous()
        labels = torch.where(positions == 0, 0, IGNORE) if self.judged else ids.roll(-1, 1)
        ones = torch.ones(size, dtype=torch.int64)
        batch = {"input_ids": ids, "labels": labels, "position_ids": positions, "segment_ids": ones}
        batch["parts"] = (positions >= self.context // 2).long()
        if self.picture:
            wanted = (size[0], *self.picture)
            batch["pixel_values"] = torch.randint(256, wanted, generator=self.random, dtype=torch.uint8)
            batch["pixel_labels"] = batch["pixel_values"][:, 0] % 2
            sides = [0.0, 0.0, self.picture[-1] / 2, self.picture[-1] / 2]
            batch["boxes"] = torch.tensor([*sides, 0.0]).expand(size[0], 1, 5).contiguous()
        return batch | ({"type_ids": ones - 1, "values": ones.float()} if self.judged else {})


def stands_in(
    name: str, shape: Architecture, vocab: int, context: int, options: Mapping[str, Any]
) -> tuple[Task, bool]:
    """A task that costs what `name` does on random rows, and whether these have a label each.

    It is the task itself where an encoder reads and a decoder writes, a classification where rows are judged, and else
    language modelling.
    """
    if shape.encoder and shape.core.memory:
        kind: Any = tasks.load(name)
        return kind(Vocabulary(vocab, kind.markers), (), context, options), False
    judged = bool(catalogue.stated(name, "judges"))
    classes = "text_classification" if shape.core.heads else "tabular_classification"
    made: Any = tasks.load(classes if judged else "language_modeling")(Vocabulary(vocab), ("", ""))
    made.coupled, made.step_tokens = (getattr(tasks.load(name), each) for each in ("coupled", "step_tokens"))
    return made, judged


@cache
def share(precision: str, where: str = device.CPU) -> float:
    """The share of the peak that a training step of a small model reaches here, measured once and remembered."""
    name = f"share {precision}"
    return float(cost.recalled(name, where) or cost.kept(name, where, _share(precision, where)))


def _share(precision: str, where: str) -> float:
    from danlu.models import preset
    from danlu.train import pace, plan

    depth = _DEPTHS.get(where, _DEPTHS[""])
    net = build(preset("qwen3", _VOCAB, _CONTEXT, depth), generator(0, "trial")).train().to(where)
    task: Any = tasks.load("language_modeling")(Vocabulary(_VOCAB))
    loader: Any = Synthetic(_CONTEXT, _VOCAB, 10**6)
    request = plan.Request(task, Train(precision=precision), loader, None, "random", time.monotonic(), device=where)
    drafted = pace.measured(request, net, plan.draft(request, net))
    return plan.step_gflop(net, drafted) / drafted.seconds_per_step / (cost.peak(precision, where) / 1e9)
