"""Attention rollout (Abnar and Zuidema 2020, 2005.00928): how much of each place may flow to where an answer is read.

Shapes: H heads · T places
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from danlu.nn.attention import Attention

Batch = dict[str, Tensor]


def rollout(net: Any, number: Callable[[Batch], Tensor], batch: Batch) -> Tensor | None:
    """(T,) of sum 1, for a batch of one example; None where a layer has no attention, or sees more than the places.

    Of each layer the mean of its heads, half of it what the residual connection passes on; multiplied up through the
    layers. Of the last layer's places each counts as much as the number depends on it: by the length of its gradient.
    """
    layers: list[Any] = [getattr(block.attention, "inner", None) for block in net.core.blocks]
    if not layers or any(type(each) is not Attention for each in layers):
        return None
    seen, states = list[Tensor](), list[Tensor]()

    def look(module: Any, given: tuple[Any, ...]) -> None:
        seen.append(module.weights(*given[:2]).detach()[0].mean(0).cpu().double())

    def keep(module: Any, given: Any, out: Tensor) -> Tensor:
        states.append(out.detach().requires_grad_())
        return states[0]

    with ExitStack() as hooks, torch.enable_grad():
        for each in layers:
            hooks.callback(each.register_forward_pre_hook(look).remove)
        hooks.callback(net.core.register_forward_hook(keep).remove)
        (slopes,) = torch.autograd.grad(number(batch).sum(), states[0])
    flow = through(seen)
    reads = slopes[0].norm(dim=-1).cpu().double()
    return reads / reads.sum().clamp(min=1e-300) @ flow


def through(layers: list[Tensor]) -> Tensor:
    """Attention (T, T) of each layer, the first first -> (T, T): of each place at the top, what comes from below."""
    same = torch.eye(len(layers[0]), dtype=layers[0].dtype)
    flow = same
    for share in layers:
        flow = (share + same) / 2 @ flow
    return flow
