"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no schedule state."""

import math

from danlu.config import Train


def rate(step: int, steps: int, train: Train) -> float:
    """The learning rate at `step` (0-based) as a share of its peak.

    All schedules rise linearly over the first `warmup` share of the steps, then:
    constant; linear and cosine fall to `final_lr` at the end; exponential falls by a constant factor per step;
    wsd (warm-up, stable, decay; Hu et al. 2024, arXiv:2404.06395) stays at the peak and falls linearly over the
    last `decay` share, so that the run can be extended from the checkpoint before the decay.
    """
    rising = max(1, round(train.warmup * steps)) if train.warmup else 0
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)  # 0 at the peak, 1 after the last step
    floor = train.final_lr
    if train.schedule == "constant":
        return 1.0
    if train.schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    if train.schedule == "exponential":
        return max(floor, 1e-3) ** done
    if train.schedule == "linear":
        return floor + (1 - floor) * (1 - done)
    falling = max(1, round(train.decay * steps))
    return floor + (1 - floor) * min(1.0, (steps - step) / falling)


def stable_until(steps: int, train: Train) -> int:
    """The last step before the decay of wsd: the checkpoint kept there can be extended."""
    return steps - max(1, round(train.decay * steps))
