"""The written form of attention against the plain formula, by value and by differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from danlu.nn.attention import View, Written, written
from danlu.nn.dropout import Dropout

B, H, K, T, S, E = 2, 4, 2, 5, 6, 8
SCALE = 0.3


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = ((B, H, T, E), (B, K, S, E), (B, K, S, E))
    return tuple(torch.randn(s, generator=random, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes)


def biases() -> dict[str, Tensor | None]:
    random = torch.Generator().manual_seed(1)
    hidden = torch.zeros(1, 1, T, S, dtype=torch.float64).masked_fill_(torch.ones(T, S).triu(2).bool(), float("-inf"))
    learned = torch.randn(B, H, T, S, generator=random, dtype=torch.float64)
    return {"none": None, "causal": hidden, "one for each head": learned}


def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, factors: Tensor | None = None) -> Tensor:
    k, v = (each.repeat_interleave(H // K, dim=1) for each in (k, v))
    scores = q @ k.transpose(-1, -2) * SCALE + (0 if bias is None else bias)
    share = scores.softmax(-1)
    return (share if factors is None else share * factors) @ v


@pytest.mark.parametrize("kind", biases())
def test_value_and_gradients_in_float64(kind: str) -> None:
    bias = biases()[kind]
    learned = kind == "one for each head"
    wanted = [*inputs(torch.float64), *([bias.requires_grad_()] if learned and bias is not None else [])]
    found = written(*wanted[:3], View("written", bias), SCALE, Dropout(0.0))
    expected = plain(*wanted[:3], bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pairs = zip(torch.autograd.grad(found, wanted, grad), torch.autograd.grad(expected, wanted, grad), strict=True)
    for ours, exact in pairs:
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-13)


def test_gradients_by_differences() -> None:
    random = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(3, n, 4, generator=random, dtype=torch.float64, requires_grad=True) for n in (5, 6, 6))
    bias = torch.randn(3, 1, 5, 6, generator=random, dtype=torch.float64, requires_grad=True)
    kept = (torch.rand(3, 5, 6, generator=random, dtype=torch.float64) > 0.3) / 0.7
    assert torch.autograd.gradcheck(lambda *each: Written.apply(*each, SCALE, kept), (q, k, v, bias))


def test_dropout_of_the_shares() -> None:
    q, k, v = inputs(torch.float64)
    dropout = Dropout(0.4)
    dropout.generator = torch.Generator().manual_seed(5)
    found = written(q, k, v, View("written"), SCALE, dropout)
    dropout.generator.manual_seed(5)
    factors = dropout.factors(torch.empty(B, H, T, S, dtype=torch.float64))
    torch.testing.assert_close(found, plain(q, k, v, None, factors), rtol=0, atol=1e-14)
    assert not torch.allclose(found, plain(q, k, v, None))


def test_bf16_is_as_near_as_its_rounding() -> None:
    exact, rounded = inputs(torch.float64), inputs(torch.bfloat16)
    bias = biases()["causal"]
    assert bias is not None
    grad = torch.randn(B, H, T, E, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = plain(*exact, bias)
    found = written(*rounded, View("written", bias.bfloat16()), SCALE, Dropout(0.0))
    gradients = zip(
        torch.autograd.grad(found, rounded, grad.bfloat16()), torch.autograd.grad(expected, exact, grad), strict=True
    )
    for ours, exactly in [(found.detach(), expected.detach()), *gradients]:
        assert float((ours.double() - exactly).norm() / exactly.norm()) < 2e-2
