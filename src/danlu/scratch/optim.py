"""Optimizers: from gradients to better weights. w weight · g its gradient · η the learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np

from danlu.scratch.module import Parameter
from danlu.scratch.tensor import Array

EPS = 1e-8


class Optimizer(ABC):
    """Changes parameters in place, one `step` at a time."""

    def __init__(self, parameters: Iterable[Parameter]):
        self.parameters = list(parameters)
        self.steps = 0

    def zero(self) -> None:
        """Forget the gradients; without this, those of the next batch are added to them."""
        for p in self.parameters:
            p.grad = None

    def step(self, lr: float) -> None:
        """One update from the gradients."""
        self.steps += 1
        for i, p in enumerate(self.parameters):
            if p.grad is not None:
                p.data -= lr * self.direction(i, p.grad)

    @abstractmethod
    def direction(self, i: int, g: Array) -> Array:
        """Which way parameter i goes, to be multiplied by -η."""

    def memory(self) -> list[Array]:
        """A zero for every weight."""
        return [np.zeros_like(p.data) for p in self.parameters]


class SGD(Optimizer):
    """Gradient descent with momentum: v ← μ v + g, w ← w - η v. With μ = 0: w ← w - η g."""

    def __init__(self, parameters: Iterable[Parameter], momentum: float = 0.0):
        super().__init__(parameters)
        self.momentum, self.velocity = momentum, self.memory()

    def direction(self, i: int, g: Array) -> Array:
        v = self.velocity[i]
        v *= self.momentum
        v += g
        return v


class RMSprop(Optimizer):
    """Steps of one size, whatever the size of g: s ← ρ s + (1 - ρ) g², w ← w - η g / (√s + ε) (Hinton 2012)."""

    def __init__(self, parameters: Iterable[Parameter], rho: float = 0.99):
        super().__init__(parameters)
        self.rho, self.square = rho, self.memory()

    def direction(self, i: int, g: Array) -> Array:
        s = self.square[i]
        s *= self.rho
        s += (1 - self.rho) * g * g
        return g / (np.sqrt(s) + EPS)


class Adam(Optimizer):
    """Momentum and RMSprop together, both freed of starting at zero (1412.6980).

    m ← β₁ m + (1 - β₁) g      s ← β₂ s + (1 - β₂) g²      w ← w - η m̂ / (√ŝ + ε)
    with m̂ = m / (1 - β₁ᵗ) and ŝ = s / (1 - β₂ᵗ) after t steps.
    """

    def __init__(self, parameters: Iterable[Parameter], beta1: float = 0.9, beta2: float = 0.999):
        super().__init__(parameters)
        self.beta1, self.beta2 = beta1, beta2
        self.mean, self.square = self.memory(), self.memory()

    def direction(self, i: int, g: Array) -> Array:
        m, s = self.mean[i], self.square[i]
        m *= self.beta1
        m += (1 - self.beta1) * g
        s *= self.beta2
        s += (1 - self.beta2) * g * g
        unbiased = m / (1 - self.beta1**self.steps)  # m̂
        return unbiased / (np.sqrt(s / (1 - self.beta2**self.steps)) + EPS)


class AdamW(Adam):
    """Adam that also shrinks the matrices: w ← w (1 - η λ) before each update (1711.05101)."""

    def __init__(self, parameters: Iterable[Parameter], beta1: float = 0.9, beta2: float = 0.95, decay: float = 0.1):
        super().__init__(parameters, beta1, beta2)
        self.decay = decay

    def step(self, lr: float) -> None:
        for p in self.parameters:
            if p.data.ndim >= 2:
                p.data *= 1 - lr * self.decay
        super().step(lr)


def clip(parameters: Iterable[Parameter], limit: float) -> float:
    """Scale all gradients to a joint length of at most `limit`; returns the length ‖g‖ before."""
    learned = [p for p in parameters if p.grad is not None]
    norm = float(np.sqrt(sum(float((p.grad**2).sum()) for p in learned if p.grad is not None)))
    for p in learned:
        if norm > limit and p.grad is not None:
            p.grad = p.grad * (limit / norm)
    return norm
