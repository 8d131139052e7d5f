"""Cross-entropy over a large vocabulary without ever holding all logits.

Shapes: N tokens · C tokens of a chunk · D width · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from danlu.nn.linear import evened

CHUNK_LOGITS = 2**24  # logits held at a time: with fewer, the product that gives d_hidden is half as fast
GPU_CHUNK_LOGITS = 2**26  # a GPU is busy only with larger products, and widens a chunk at once
EVEN = 128  # rows of logits on a processor are a multiple
IGNORE = -100  # the label of what does not count
BLOCK_LOGITS = 2**18  # logits that are widened to fp32 at a time: small enough for the processor's cache


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, bias: Tensor | None = None, chunk: int = 0,
    ignore: int | None = IGNORE,
) -> Tensor:  # fmt: skip
    """SUM over tokens of -log softmax(hidden · weightᵀ + bias)[target], a scalar in fp32 (fp64 for fp64).

    hidden (N, D), weight (V, D), bias (V,), targets (N,), of which those equal to `ignore` do not count (None: all
    do); `chunk` tokens at a time. Gradients are computed in the forward, so that the logits of a chunk are formed once
    and dropped.
    """
    return _ChunkedCrossEntropy.apply(hidden, weight, bias, targets, chunk, ignore)


@torch.no_grad()
def token_losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, bias: Tensor | None = None, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """For evaluation: the loss (N,) of each token, and whether (N,) no other token is held more likely there."""
    losses = torch.empty(len(targets), dtype=_wide(hidden), device=hidden.device)
    hits = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
    for rows, padded in _chunks(_evened(hidden), weight, bias, chunk):
        logits = padded[: len(targets[rows])]
        for block in _blocks(logits):
            wide = logits[block].to(losses.dtype)
            target, highest = _at(wide, targets[rows][block]), wide.amax(-1)
            hits[rows][block] = target == highest
            losses[rows][block] = (wide - highest[:, None]).exp_().sum(-1).log() + highest - target
    return losses, hits


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int, ignore: int | None
    ) -> Tensor:
        total = torch.zeros((), dtype=_wide(hidden), device=hidden.device)
        counted = None if ignore is None else (targets != ignore).nonzero().flatten()
        if counted is not None and len(counted) == len(targets):
            counted = None
        used, labels = (hidden, targets) if counted is None else (hidden[counted], targets[counted])
        used = _evened(used)
        d_used = torch.empty_like(used)
        tuned = ctx.needs_input_grad[1]
        d_weight = torch.zeros(weight.shape, dtype=_wide(weight), device=weight.device) if tuned else None
        d_bias = torch.zeros_like(bias, dtype=_wide(weight)) if bias is not None and ctx.needs_input_grad[2] else None
        for rows, logits in _chunks(used, weight, bias, chunk):
            real = len(labels[rows])
            total += _to_gradient_(logits[:real], labels[rows])
            logits[real:].zero_()
            torch.mm(logits, weight, out=d_used[rows])
            if d_weight is not None:
                d_weight += logits.T @ used[rows]
            if d_bias is not None:
                d_bias += logits.sum(0, dtype=d_bias.dtype)
        d_used = d_used[: len(labels)]
        d_hidden = d_used if counted is None else torch.zeros_like(hidden).index_copy_(0, counted, d_used)
        of_table = (each if each is None else each.to(weight.dtype) for each in (d_weight, d_bias))
        ctx.save_for_backward(d_hidden, *of_table)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *(each if each is None else each * grads[0] for each in ctx.saved_tensors), None, None, None


def _to_gradient_(logits: Tensor, targets: Tensor) -> Tensor:
    """Turn logits (C, V) into softmax - onehot in place; returns the sum of the losses."""
    total = torch.zeros((), dtype=_wide(logits), device=logits.device)
    for block in _blocks(logits):
        index = targets[block][:, None]
        wide = logits[block].to(total.dtype, copy=True)
        highest, target = wide.amax(-1), wide.gather(1, index).squeeze(1)
        share = torch.softmax(wide, -1, out=wide)
        # Of all logarithms of shares only that of the largest cannot underflow: logsumexp = highest - log(its share).
        total += (highest - share.amax(-1).log() - target).sum()
        share.scatter_add_(1, index, share.new_full((), -1.0).expand(index.shape))
        logits[block] = share
    return total


def _chunks(hidden: Tensor, weight: Tensor, bias: Tensor | None, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their logits, chunk after chunk, in one buffer."""
    most = chunk or max((CHUNK_LOGITS if hidden.is_cpu else GPU_CHUNK_LOGITS) // len(weight), 64)
    size = max(math.ceil(len(hidden) / max(math.ceil(len(hidden) / most), 1)), 1)  # chunks of one size
    buffer = hidden.new_empty(min(size, len(hidden)), len(weight))
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        logits = buffer[: len(hidden[rows])]
        torch.mm(hidden[rows], weight.T, out=logits)
        yield rows, logits if bias is None else logits.add_(bias.to(logits.dtype))


def _evened(hidden: Tensor) -> Tensor:
    """(N, D) -> (N', D), so that few sizes occur however many tokens count."""
    return evened(hidden, EVEN) if len(hidden) > EVEN else hidden


def _blocks(logits: Tensor) -> Iterator[slice]:
    size = max(BLOCK_LOGITS // logits.shape[1], 1) if logits.is_cpu else len(logits)
    return (slice(start, start + size) for start in range(0, len(logits), size))


def _at(logits: Tensor, targets: Tensor) -> Tensor:
    """The logit of each row's target."""
    return logits.gather(1, targets[:, None]).squeeze(1)


def wide(logits: Tensor) -> Tensor:
    """In fp32, or wider where they are."""
    return logits.to(_wide(logits))


def _wide(x: Tensor) -> torch.dtype:
    """At least fp32."""
    return torch.promote_types(x.dtype, torch.float32)
