"""What an encoder and a decoder take of a row, and what that costs."""

from typing import Any

from torch import nn

from danlu.data.loader import Loader, Shape
from danlu.nn.network import EncoderDecoder
from danlu.randomness import generator
from danlu.tasks.task import Task
from danlu.train import cost

_SHOWN = 16  # rows that are looked at


def lengths(task: Task, loader: Loader, net: nn.Module) -> dict[str, int]:
    """How many tokens of a row each side of an encoder-decoder takes, by the plan's names; nothing of others."""
    if not isinstance(net, EncoderDecoder):
        return {}
    batch = task.corrupt(loader.train(0, 0, Shape(min(_SHOWN, len(loader)), 1)), generator(0, "lengths"))
    return {"source": batch["input_ids"].shape[1], "target": batch[net.continues].shape[1]}


def flops(net: Any, source: int, target: int) -> float:
    """Forward and backward operations of a row that an encoder reads (`source` tokens) and a decoder writes (`target`).

    6 per weight and token that passes it: the memory's keys and values are made of what was read, logits of what is
    written, and a table that is looked up costs nothing. Attention takes 12 * queries * keys * width a layer, causal
    half of that.
    """
    across = [block.across.inner for block in net.core.blocks if block.across is not None]
    remembered = sum(cost.matrices(each.k) + cost.matrices(each.v) for each in across)
    read = cost.matrices(net.encoder.core) + remembered
    written = cost.matrices(net.core) - remembered + net.head.weight.numel()
    one, other = net.encoder.core.config, net.core.config
    within = 12.0 * one.layers * one.heads * one.head_dim * source**2
    between = 12.0 * other.layers * other.heads * other.head_dim * target * (target / 2 + source)
    return 6.0 * (read * source + written * target) + within + between
