"""The optimizers against torch.optim, step by step, and the schedules against danlu's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from danlu.config import Train
from danlu.scratch import optim
from danlu.scratch.module import Parameter
from danlu.scratch.schedule import cosine, warm_stable_decay
from danlu.train import schedule
from tests.scratch.gradients import close, draw

PAIRS: dict[str, tuple[Callable[..., optim.Optimizer], Callable[..., Any]]] = {
    "sgd": (optim.SGD, lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda p: optim.SGD(p, 0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "rmsprop": (optim.RMSprop, lambda p: torch.optim.RMSprop(p, 0.1)),
    "adam": (optim.Adam, lambda p: torch.optim.Adam(p, 0.1)),
    "adamw": (optim.AdamW, lambda p: torch.optim.AdamW(p, 0.1, betas=(0.9, 0.95), weight_decay=0.1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_twenty_steps_are_torchs(name: str) -> None:
    make, make_theirs = PAIRS[name]
    ours = [Parameter(x) for x in draw((3, 4), (2, 2))]
    theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]
    mine, other = make(ours), make_theirs(theirs)
    for step in range(20):
        for p, q, g in zip(ours, theirs, draw((3, 4), (2, 2), seed=step), strict=True):
            p.grad, q.grad = g, torch.from_numpy(g)
        mine.step(0.1)
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        close(p.data, q.detach().numpy(), 1e-12)


def test_vectors_do_not_decay() -> None:
    vector, matrix = Parameter(np.ones(3)), Parameter(np.ones((3, 1)))
    vector.grad, matrix.grad = np.zeros(3), np.zeros((3, 1))
    optim.AdamW([vector, matrix], decay=0.5).step(0.1)
    assert vector.data.tolist() == [1, 1, 1] and np.allclose(matrix.data, 0.95)


def test_zero_forgets() -> None:
    p = Parameter(np.ones(2))
    p.grad = np.ones(2)
    optim.SGD([p]).zero()
    assert p.grad is None


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clip_is_torchs(limit: float) -> None:
    ours = [Parameter(x) for x in draw((3, 4), (5,))]
    theirs = [torch.from_numpy(p.data).clone().requires_grad_() for p in ours]
    for p, q, g in zip(ours, theirs, draw((3, 4), (5,), seed=1), strict=True):
        p.grad, q.grad = g, torch.from_numpy(g.copy())
    norm = optim.clip(ours, limit)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, limit)), rel=1e-12)
    for p, q in zip(ours, theirs, strict=True):
        assert p.grad is not None and q.grad is not None
        close(p.grad, q.grad.numpy(), 1e-5)  # torch adds 1e-6 to the norm


@pytest.mark.parametrize("steps", [40, 100])
def test_schedules_are_those_of_the_real_system(steps: int) -> None:
    wsd, half = Train(warmup=0.1, decay=0.5), Train(warmup=0.1, schedule="cosine")
    rising, falling = round(0.1 * steps), round(0.5 * steps)
    for step in range(steps):
        assert warm_stable_decay(step, steps, rising, falling) == pytest.approx(schedule.rate(step, steps, wsd))
        assert cosine(step, steps, rising) == pytest.approx(schedule.rate(step, steps, half))
