"""A running mean of the weights (Polyak and Juditsky 1992): it follows the steps slowly, and their noise cancels.

After each step e <- a e + (1 - a) w. The first means forget sooner: a is at most (1 + step) / (10 + step), so that the
weights of the start, of which nothing is to be kept, are gone after some steps. A mean is taken element by element:
each rank takes that of what it holds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from danlu.train.precision import Masters

_STATE = "average/"  # before their names among the state of the optimizers


class Average:
    """The means of the masters in fp32, which they change places with to be measured; with decay 0 there are none."""

    def __init__(self, decay: float, masters: Masters):
        self.decay, self.masters = decay, masters
        self.means = {name: weight.clone() for name, weight in masters.params.items()} if decay else {}

    def update(self, step: int) -> None:
        """Take in the weights after a step; the first is step 0."""
        if self.means:
            share = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(
                list(self.means.values()), [self.masters.params[name] for name in self.means], 1 - share
            )

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the network computes with the means, and the masters are these. Afterwards each bit is as before."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, mean in self.means.items():
            weight = self.masters.params[name]
            before = weight.clone()
            weight.copy_(mean)
            mean.copy_(before)
        if self.means:
            self.masters.publish()

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, beside the state of the optimizers."""
        return {f"{_STATE}{name}": mean for name, mean in self.means.items()}

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint, or from weights alone."""
        for name, mean in self.means.items():
            mean.copy_(state.get(f"{_STATE}{name}", weights[name]))

    def within(self, weights: dict[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network, with their means from a checkpoint's state where it has them."""
        return weights | {name: state[f"{_STATE}{name}"] for name in self.means}
