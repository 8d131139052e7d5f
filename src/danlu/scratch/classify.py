"""Learn to tell classes apart: the training loop that all others are variations of.

Shapes: N examples · F features · C classes
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from danlu.scratch.losses import cross_entropy
from danlu.scratch.module import Module
from danlu.scratch.optim import Optimizer
from danlu.scratch.tensor import Array, Tensor


def epoch(net: Module, optimizer: Optimizer, x: Array, y: Array, lr: float, rng: np.random.Generator) -> float:
    """Once over all examples x (N, F), y (N,) in a random order; returns the mean loss."""
    return float(np.mean(list(steps(net, optimizer, x, y, lr, rng))))


def steps(
    net: Module, optimizer: Optimizer, x: Array, y: Array, lr: float, rng: np.random.Generator
) -> Iterator[float]:
    """An epoch, step by step: the loss of each batch."""
    net.train()
    for rows in batches(len(x), 128, rng):
        loss = cross_entropy(net(Tensor(x[rows])), y[rows])  # forward: how wrong?
        optimizer.zero()
        loss.backward()  # backward: who is to blame?
        optimizer.step(lr)  # a small step the other way
        yield float(loss.data)


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[Array]:
    """Every number below `count` once, in a random order, `size` at a time."""
    order = rng.permutation(count)
    return (order[start : start + size] for start in range(0, count, size))


def accuracy(net: Module, x: Array, y: Array) -> float:
    """The share of examples whose highest score is the right one."""
    net.train(False)
    return float((net(Tensor(x)).data.argmax(-1) == y).mean())
