"""The two oracles of every derivative: central differences, and torch; both in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from danlu.scratch.module import Module
from danlu.scratch.tensor import Tensor

Array = np.ndarray
STEP = 1e-5  # h: the formula's error is of order h², rounding of order 1e-16 / h


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Array]:
    """Normal numbers, none within 0.1 of zero, where some functions have a kink or a pole."""
    source = rng(seed)
    numbers = [source.normal(size=shape) for shape in shapes]
    return [np.asarray(x + 0.1 * np.sign(x)) for x in numbers]


def weighted(y: Array) -> Array:
    """A fixed weight for each number of y, so that a sum over them loses none of them."""
    return np.asarray(rng(99).normal(size=y.shape))


def analytic(f: Callable[..., Tensor], arrays: list[Array]) -> tuple[Array, list[Array]]:
    """y = f(arrays), and the gradient of Σ weight · y in each array."""
    tensors = [Tensor(x) for x in arrays]
    y = f(*tensors)
    (y * weighted(y.data)).sum().backward()
    return y.data, [np.zeros_like(t.data) if t.grad is None else t.grad for t in tensors]


def numeric(loss: Callable[[], float], x: Array) -> Array:
    """(L(x + h) - L(x - h)) / 2h for each number of x, which is changed in place and put back."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        old = x[at]
        x[at] = old + STEP
        above = loss()
        x[at] = old - STEP
        below = loss()
        x[at] = old
        gradient[at] = (above - below) / (2 * STEP)
    return gradient


def close(got: Array, wanted: Array, limit: float) -> None:
    """‖got - wanted‖ ≤ limit · ‖wanted‖, with the same shape."""
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) <= limit * max(np.linalg.norm(wanted), 1e-3), (got, wanted)


def check_differences(f: Callable[..., Tensor], arrays: list[Array]) -> None:
    """Every gradient of f against central differences."""
    arrays = [x.copy() for x in arrays]
    y, gradients = analytic(f, arrays)
    weights = weighted(y)

    def loss() -> float:
        return float((f(*(Tensor(x) for x in arrays)).data * weights).sum())

    for x, gradient in zip(arrays, gradients, strict=True):
        close(gradient, numeric(loss, x), 1e-7)


def check_torch(f: Callable[..., Tensor], theirs: Callable[..., torch.Tensor], arrays: list[Array]) -> None:
    """Every value and gradient of f against torch's."""
    y, gradients = analytic(f, arrays)
    inputs = [torch.from_numpy(x.copy()).requires_grad_() for x in arrays]
    z = theirs(*inputs)
    close(y, z.detach().numpy(), 1e-10)
    (z * torch.from_numpy(weighted(y))).sum().backward()
    for x, gradient in zip(inputs, gradients, strict=True):
        assert x.grad is not None
        close(gradient, x.grad.numpy(), 1e-10)


def check_parameters(layer: Module, *inputs: Any) -> None:
    """The gradient of every parameter of a layer against central differences."""
    weights = weighted(layer(*inputs).data)

    def total() -> Tensor:
        return (layer(*inputs) * weights).sum()

    parameters = layer.parameters()
    assert parameters
    for parameter in parameters.values():
        parameter.grad = None
    total().backward()
    for parameter in parameters.values():
        assert parameter.grad is not None
        close(parameter.grad, numeric(lambda: float(total().data), parameter.data), 1e-7)


def check_torch_parameters(layer: Module, inputs: list[Any], theirs: torch.Tensor, state: dict[str, Any]) -> None:
    """The gradient of every parameter of a layer against torch's: `theirs` is computed from `state`, by our names.

    A value of `state` is a tensor, or a function that takes our part out of a gradient: torch keeps q, k and v in one.
    """
    for parameter in layer.parameters().values():
        parameter.grad = None
    y = layer(*inputs)
    weights = weighted(y.data)
    (y * weights).sum().backward()
    (theirs * torch.from_numpy(weights)).sum().backward()
    assert set(state) == set(layer.parameters())
    for name, parameter in layer.parameters().items():
        wanted = state[name]() if callable(state[name]) else state[name].grad
        assert parameter.grad is not None and wanted is not None
        close(parameter.grad, wanted.numpy(), 1e-10)


def leaves(layer: Module) -> dict[str, torch.Tensor]:
    """The parameters of a layer as torch's."""
    return {name: torch.from_numpy(p.data.copy()).requires_grad_() for name, p in layer.parameters().items()}


def randomise(layer: Module, seed: int = 5) -> None:
    """Every parameter at random, norms and biases too: what is 1 or 0 hides mistakes."""
    source = rng(seed)
    for parameter in layer.parameters().values():
        parameter.data = parameter.data + source.normal(0.0, 0.3, parameter.shape)
