"""Learning-rate schedules against torch's, and by hand where torch has none."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from danlu.config import Train
from danlu.train.schedule import rate, stable_until

KINDS = ("wsd", "cosine", "linear", "exponential", "constant")


def rates(steps: int, **settings: Any) -> list[float]:
    train = Train(**settings)
    return [rate(step, steps, train) for step in range(steps)]


def torchs(make: Any, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_and_linear_are_torchs(floor: float) -> None:
    falling = 80
    cosine = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, falling, eta_min=floor), falling)
    linear = torchs(lambda o: lr_scheduler.LinearLR(o, 1.0, floor, falling), falling)
    for kind, expected in (("cosine", cosine), ("linear", linear)):
        found = rates(100, schedule=kind, warmup=0.2, final_lr=floor)
        assert found[20:] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_exponential_is_torchs() -> None:
    expected = torchs(lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / 50)), 50)
    assert rates(50, schedule="exponential", warmup=0.0, final_lr=0.01) == pytest.approx(expected, rel=1e-9)


def test_constant_stays() -> None:
    assert rates(40, schedule="constant", warmup=0.1) == [0.25, 0.5, 0.75, 1.0] + [1.0] * 36


def test_warm_up_stable_decay_by_hand() -> None:
    assert rates(10, schedule="wsd", warmup=0.2, decay=0.4) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert rates(10, schedule="wsd", warmup=0.2, decay=0.4, final_lr=0.2) == pytest.approx(
        [0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4]
    )


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("steps", [10, 11, 100, 999])
def test_the_kept_checkpoint_is_the_last_at_the_peak(steps: int, decay: float) -> None:
    train = Train(schedule="wsd", warmup=0.0, decay=decay)
    stable = stable_until(steps, train)
    assert all(rate(step, steps, train) == 1.0 for step in range(stable + 1))
    assert all(rate(step, steps, train) < 1.0 for step in range(stable + 1, steps))
    longer = Train(schedule="constant", warmup=0.0)
    assert [rate(step, 5 * steps, longer) for step in range(stable)] == [rate(s, steps, train) for s in range(stable)]


@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 400),
    warmup=st.floats(0, 0.99),
    decay=st.floats(0, 0.99),
    floor=st.floats(0, 0.99),
)
def test_every_rate_lies_between_nothing_and_the_peak(
    kind: str, steps: int, warmup: float, decay: float, floor: float
) -> None:
    train = Train(schedule=kind, warmup=warmup, decay=decay, final_lr=floor)  # type: ignore[arg-type]
    found = [rate(step, steps, train) for step in range(steps)]
    assert all(math.isfinite(each) and 0 < each <= 1 for each in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert 0 <= stable_until(steps, train) < steps or steps == 1
