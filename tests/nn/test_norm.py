"""Our norms out of torch's kernels against the plain formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from danlu.nn import norm
from danlu.nn.norm import LayerNorm, Norm, RmsNorm

EPS = 1e-5


def inputs(dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 3 + 1).to(dtype).requires_grad_()
    weight = (torch.rand(shape[-1], generator=generator) + 0.5).requires_grad_()
    return x, weight, torch.randn(shape, generator=generator).to(dtype)


def plain(kind: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if kind == "layer":
        return F.layer_norm(x, weight.shape, weight, bias, EPS)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / expected.norm())


FUNCTIONS = {"layer": lambda x, w, b: LayerNorm.apply(x, w, b, EPS), "rms": lambda x, w, b: RmsNorm.apply(x, w, EPS)}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_value_and_gradients_in_float64(kind: str) -> None:
    x, weight, _ = inputs(torch.float64, 3, 5, 12)
    weight = weight.double().detach().requires_grad_()
    bias = torch.linspace(-1, 1, 12, dtype=torch.float64).requires_grad_()
    found = FUNCTIONS[kind](x, weight, bias)
    assert (found - plain(kind, x, weight, bias)).abs().max() <= 1e-14
    assert torch.autograd.gradcheck(FUNCTIONS[kind], (x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("large", [0, 10**9])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_narrow_inputs_with_fp32_vectors(kind: str, dtype: torch.dtype, large: int, monkeypatch: Any) -> None:
    """Large tensors take our kernels, small ones torch's; both keep wide statistics and the dtype of x."""
    monkeypatch.setattr(norm, "LARGE", large)
    x, weight, grad = inputs(dtype, 16, 64, 96)
    made = Norm(96, kind, EPS)
    made.weight.data = weight.detach()
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, weight, torch.zeros(96))]
    expected = plain(kind, *wide)
    expected.backward(grad.double())
    found = made(x)
    found.backward(grad)
    limit = 2e-6 if dtype == torch.float32 else 6e-3
    assert found.dtype == x.grad.dtype == dtype
    assert relative(found, expected) <= limit
    assert relative(x.grad, wide[0].grad) <= limit
    if large == 0 or dtype == torch.float32:  # torch's own sums over rows are bf16's
        vectors = [made.weight] if made.bias is None else [made.weight, made.bias]
        for vector, exact in zip(vectors, wide[1:], strict=False):
            assert vector.grad.dtype == torch.float32
            assert relative(vector.grad, exact.grad) <= limit


def test_rows_without_content_stay_finite() -> None:
    x, weight, grad = inputs(torch.bfloat16, 4, 8)
    x = torch.zeros_like(x).requires_grad_()
    RmsNorm.apply(x, weight, EPS).backward(grad)
    assert x.grad.isfinite().all()


def test_a_view_as_input() -> None:
    x, weight, _ = inputs(torch.float32, 6, 4, 8)
    turned = x.transpose(0, 1)
    assert torch.allclose(RmsNorm.apply(turned, weight, EPS), plain("rms", turned, weight), atol=1e-6)


def test_kinds() -> None:
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(Norm(16, "rms1", EPS)(x), F.rms_norm(x, (16,), None, EPS), atol=1e-6)
    assert torch.allclose(Norm(16, "rms", EPS)(x), F.rms_norm(x, (16,), None, EPS), atol=1e-6)
    assert Norm(16, "layer", EPS)(x.bfloat16()).dtype == torch.bfloat16
    assert torch.allclose(Norm(16, "layer", EPS)(x), F.layer_norm(x, (16,), None, None, EPS), atol=1e-6)
