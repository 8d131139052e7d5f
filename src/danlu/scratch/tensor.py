"""A tensor that remembers how it was computed, and so can be differentiated: reverse mode, from the chain rule alone.

Every operation keeps, for each tensor x that it read, a function that turns dL/d(out) into dL/dx. `backward` starts at
the loss with dL/dL = 1 and walks these functions from the last result to the first input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Pull = Callable[[Array], Array]  # dL/d(out) -> dL/dx


class Tensor:
    """An array, the gradient of the loss in it (None before `backward`), and where it came from."""

    __array_ufunc__ = None  # array + Tensor asks Tensor.__radd__ instead of looping over the elements

    def __init__(self, data: Any, *sources: tuple[Tensor, Pull]):
        self.data: Array = np.asarray(data)
        self.grad: Array | None = None
        self.sources = sources

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __repr__(self) -> str:
        return f"Tensor({self.data!r})"

    def backward(self) -> None:
        """Add dL/dx to `grad` of every tensor x that this scalar was computed from; raises ValueError for no scalar."""
        if self.data.size != 1:
            raise ValueError(f"only a scalar has a gradient; this tensor has shape {self.shape}")
        order = in_order(self)
        for tensor in order:
            if tensor.sources:  # what is computed starts anew; parameters add up over several calls
                tensor.grad = None
        self.grad = np.ones_like(self.data)
        for tensor in reversed(order):
            for source, pull in tensor.sources:
                assert tensor.grad is not None
                step = fit(pull(tensor.grad), source.shape)
                source.grad = step if source.grad is None else source.grad + step

    # --- arithmetic: every line is a value and its derivatives ---

    def __add__(self, other: Any) -> Tensor:
        other = self._like(other)
        return Tensor(self.data + other.data, (self, lambda g: g), (other, lambda g: g))

    def __mul__(self, other: Any) -> Tensor:
        other = self._like(other)
        return Tensor(self.data * other.data, (self, lambda g: g * other.data), (other, lambda g: g * self.data))

    def __pow__(self, n: float) -> Tensor:
        return Tensor(self.data**n, (self, lambda g: g * n * self.data ** (n - 1)))

    def __matmul__(self, other: Tensor) -> Tensor:
        """(..., n, k) @ (..., k, m) -> (..., n, m); the leading axes broadcast. dA = G Bᵀ, dB = Aᵀ G."""
        if min(self.data.ndim, other.data.ndim) < 2:
            raise ValueError(f"a product of matrices needs two axes or more; got {self.shape} @ {other.shape}")
        a, b = self.data, other.data
        return Tensor(a @ b, (self, lambda g: g @ b.swapaxes(-1, -2)), (other, lambda g: a.swapaxes(-1, -2) @ g))

    def __neg__(self) -> Tensor:
        return self * -1.0

    def __sub__(self, other: Any) -> Tensor:
        return self + -self._like(other)

    def __truediv__(self, other: Any) -> Tensor:
        return self * self._like(other) ** -1.0

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Tensor:
        return -self + other

    def _like(self, other: Any) -> Tensor:
        return other if isinstance(other, Tensor) else Tensor(np.asarray(other, dtype=self.data.dtype))

    def exp(self) -> Tensor:
        e = np.exp(self.data)
        return Tensor(e, (self, lambda g: g * e))

    def log(self) -> Tensor:
        return Tensor(np.log(self.data), (self, lambda g: g / self.data))

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Every summand moves the sum by as much as it moves itself: its gradient is the sum's."""
        kept = self.data.sum(axis=axis, keepdims=True).shape
        total = self.data.sum(axis=axis, keepdims=keepdims)
        return Tensor(total, (self, lambda g: np.broadcast_to(g.reshape(kept), self.shape)))

    def mean(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        count = self.data.size if axis is None else self.shape[axis]
        return self.sum(axis, keepdims) * (1.0 / count)

    def reshape(self, *shape: int) -> Tensor:
        return Tensor(self.data.reshape(shape), (self, lambda g: g.reshape(self.shape)))

    def swap(self, a: int, b: int) -> Tensor:
        """Exchange two axes."""
        return Tensor(self.data.swapaxes(a, b), (self, lambda g: g.swapaxes(a, b)))

    def __getitem__(self, index: Any) -> Tensor:
        """A part, or the rows of many indices; a row that is taken twice gets both gradients."""

        def pull(g: Array) -> Array:
            whole = np.zeros_like(self.data)
            np.add.at(whole, index, g)
            return whole

        return Tensor(self.data[index], (self, pull))


def join(a: Tensor, b: Tensor) -> Tensor:
    """(..., n), (..., m) -> (..., n + m): side by side on the last axis."""
    n = a.shape[-1]
    return Tensor(np.concatenate((a.data, b.data), -1), (a, lambda g: g[..., :n]), (b, lambda g: g[..., n:]))


def fit(grad: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: a number that was used many times gets the sum of the gradients of its uses."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple(axis for axis, size in enumerate(shape) if size == 1 and grad.shape[axis] != 1)
    return grad.sum(axis=repeated, keepdims=True)


def in_order(last: Tensor) -> list[Tensor]:
    """Everything that `last` was computed from, each after its own sources; no recursion, so any depth is fine."""
    order: dict[int, Tensor] = {}
    waiting = [(last, False)]
    while waiting:
        tensor, ready = waiting.pop()
        if ready:
            order[id(tensor)] = tensor
        elif id(tensor) not in order:
            waiting += [(tensor, True), *((source, False) for source, _ in tensor.sources)]
    return list(order.values())
