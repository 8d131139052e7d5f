"""Every operation against central differences and torch, over all shapes that broadcast."""

import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from danlu.scratch.tensor import Tensor, fit, join
from tests.scratch.gradients import check_differences, check_torch, draw

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
PAIRS = mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3)
PRODUCTS = mutually_broadcastable_shapes(signature="(n,k),(k,m)->(n,m)", max_dims=2, max_side=3)
ONE: dict[str, tuple[Callable, Callable]] = {
    "exp": (Tensor.exp, torch.exp),
    "log": (lambda x: (x * x).log(), lambda x: (x * x).log()),
    "power": (lambda x: (x * x + 1.0) ** -0.5, lambda x: (x * x + 1).rsqrt()),
    "cube": (lambda x: x**3, lambda x: x**3),
    "negative": (operator.neg, operator.neg),
    "sum": (Tensor.sum, torch.sum),
    "sum of an axis": (lambda x: x.sum(1), lambda x: x.sum(1)),
    "sum kept": (lambda x: x.sum(-1, keepdims=True), lambda x: x.sum(-1, keepdim=True)),
    "mean": (Tensor.mean, torch.mean),
    "mean of an axis": (lambda x: x.mean(0), lambda x: x.mean(0)),
    "reshape": (lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6)),
    "swap": (lambda x: x.swap(0, 2), lambda x: x.swapaxes(0, 2)),
    "slice": (lambda x: x[:, 1:, ::2], lambda x: x[:, 1:, ::2]),
    "rows taken twice": (lambda x: x[np.array([[0, 1], [1, 1]])], lambda x: x[torch.tensor([[0, 1], [1, 1]])]),
    "numbers on the left": (lambda x: 2.0 - 3.0 * x + 1.0, lambda x: 2.0 - 3.0 * x + 1.0),
    "used twice": (lambda x: x * x + x.exp() * x, lambda x: x * x + x.exp() * x),
}


@pytest.mark.parametrize("name", ONE)
def test_of_one_tensor(name: str) -> None:
    ours, theirs = ONE[name]
    arrays = draw((2, 3, 4))
    check_differences(ours, arrays)
    check_torch(ours, theirs, arrays)


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=40, deadline=None)
@given(shapes=PAIRS, seed=st.integers(0, 99))
def test_of_two_tensors_that_broadcast(name: str, shapes: tuple, seed: int) -> None:
    arrays = draw(*shapes.input_shapes, seed=seed)
    if name == "/":
        arrays[1] += np.sign(arrays[1])  # away from the pole
    check_differences(OPERATIONS[name], arrays)
    check_torch(OPERATIONS[name], OPERATIONS[name], arrays)


@settings(max_examples=60, deadline=None)
@given(shapes=PRODUCTS, seed=st.integers(0, 99))
def test_products_of_matrices_that_broadcast(shapes: tuple, seed: int) -> None:
    arrays = draw(*shapes.input_shapes, seed=seed)
    check_differences(operator.matmul, arrays)
    check_torch(operator.matmul, operator.matmul, arrays)


def test_join() -> None:
    arrays = draw((2, 3), (2, 4))
    check_differences(join, arrays)
    check_torch(join, lambda a, b: torch.cat((a, b), -1), arrays)


@given(shapes=PAIRS)
def test_fit_gives_every_number_the_sum_of_its_uses(shapes: tuple) -> None:
    for shape in shapes.input_shapes:
        copies = np.broadcast_to(np.zeros(shape), shapes.result_shape).size
        fitted = fit(np.ones(shapes.result_shape), shape)
        assert fitted.shape == shape and fitted.sum() == copies


def test_gradients_of_inputs_add_up_and_of_results_do_not() -> None:
    x = Tensor(np.array([2.0]))
    y = x * x
    z = (y * 3.0).sum()
    z.backward()
    z.backward()
    assert x.grad is not None and x.grad.tolist() == [24.0] and y.grad is not None and y.grad.tolist() == [3.0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="only a scalar"):
        Tensor(np.ones(2)).backward()
    with pytest.raises(ValueError, match="two axes"):
        Tensor(np.ones(2)) @ Tensor(np.ones((2, 2)))


def test_an_array_on_the_left_makes_one_tensor() -> None:
    total = np.ones(3) + Tensor(np.ones(3))
    assert isinstance(total, Tensor) and total.shape == (3,)


def test_single_precision_stays_single() -> None:
    x = Tensor(np.ones((2, 2), dtype=np.float32))
    y = ((x @ x + 1.0) * np.ones(2) / 3.0 - 2).mean().exp()
    y.backward()
    assert y.data.dtype == np.float32 and x.grad is not None and x.grad.dtype == np.float32


def test_a_chain_longer_than_pythons_stack() -> None:
    x = Tensor(np.array(1.0))
    y = x
    for _ in range(5000):
        y = y + 0.001
    y.backward()
    assert x.grad == 1.0
