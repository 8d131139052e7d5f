"""Which steps may change the weights: none whose loss or gradient is not finite, none that is a spike.

The rule for spikes is that of OLMo-core's SkipStepOptimizer (github.com/allenai/OLMo-core, olmo_core/optim): a step is
skipped whose loss or whose gradient's norm lies more than 6 standard deviations above the mean of the last 128 steps,
once there are 64 of them. Three things differ. A skipped step does not enter the statistics, so that one spike does not
hide the next. Logarithms are compared: where most rows are known already, losses of steps spread over orders of
magnitude, and it would be the hard rows that are skipped, and never learned. What hardly varies is not read too finely:
a loss less than 12 % above its mean and a norm of less than three times its mean are no spikes. (Norms under the clip
double on a single odd batch, and harm nothing.)

PATIENCE skipped steps in a row mean that the weights are lost or the rate is too high: the training returns to its last
good state, halves its learning rate, and goes on with the data AFTER the bad region, as Chowdhery et al. 2022
(arXiv:2204.02311, section 5.1) did by hand. Steps are never counted back: data, schedule and log stay a function of the
step. After ROLLBACKS returns, the next PATIENCE skipped steps in a row end the training.
"""

import math

WINDOW, LEAST = 128, 64  # good steps that are remembered; how many must be before one can be called a spike
SIGMAS = 6.0
LOSS_FLOOR, NORM_FLOOR = 0.02, math.log(3) / SIGMAS  # the least standard deviation of a logarithm that is assumed
TINY = 1e-3  # what is less counts as this: losses of rows that are known say nothing by their size
_LARGEST = 700.0  # the logarithm of what a float can still hold
PATIENCE = 5
ROLLBACKS = 3

Window = list[list[float]]  # [loss, norm] of the last good steps, oldest first


def objection(window: Window, loss: float, norm: float) -> str:
    """Why a step must not be taken: "not_finite", "spike", or "" where nothing speaks against it."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return "not_finite"
    if len(window) < LEAST:
        return ""
    losses, norms = zip(*window, strict=True)
    return "spike" if loss > limit(losses, LOSS_FLOOR) or norm > limit(norms, NORM_FLOOR) else ""


def limit(values: tuple[float, ...], floor: float) -> float:
    """What has a logarithm six standard deviations above the mean of theirs."""
    logs = [math.log(max(value, TINY)) for value in values]
    mean = math.fsum(logs) / len(logs)
    variance = math.fsum((each - mean) ** 2 for each in logs) / (len(logs) - 1)
    return math.exp(min(mean + SIGMAS * max(math.sqrt(variance), floor), _LARGEST))


def remember(window: Window, loss: float, norm: float) -> None:
    """Add a good step; the oldest one goes."""
    window.append([loss, norm])
    del window[:-WINDOW]
