"""Products in fp8 against quantised products that are written out in float64, without torch's own 8-bit numbers."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.adapt.lora import Lora
from danlu.nn import fp8
from danlu.nn.linear import Linear, linear
from tests.train import tiny

FORMATS = {"forward": (3, -6, 448.0), "gradient": (2, -14, 57_344.0)}  # bits of mantissa, least exponent, largest


def rounded(x: Tensor, kind: str) -> Tensor:
    """float64 -> the nearest numbers of a format whose largest is x's largest magnitude; ties to the even one."""
    bits, least, most = FORMATS[kind]
    scale = x.abs().max().clamp(min=1e-12) / most
    units = (x / scale).clamp(-most, most)
    exponent = torch.floor(torch.log2(units.abs().clamp(min=2.0**least))).clamp(min=least)
    step = 2.0 ** (exponent - bits)
    return torch.round(units / step) * step * scale  # torch.round takes the even one


def drawn(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Numbers over several powers of two; their bits fit into bf16."""
    random = torch.Generator().manual_seed(seed)
    size = torch.exp2(spread * torch.randn(shape, generator=random))
    return (size * torch.randn(shape, generator=random)).bfloat16().float()


def close(found: Tensor | None, wanted: Tensor) -> bool:
    assert found is not None
    return bool((found.double() - wanted).norm() < 1e-6 * wanted.norm())


@pytest.mark.parametrize("shape", [(2, 24, 32), (16, 32), (3, 5, 48)])  # 48, 16 and 15 rows
def test_forward_and_both_gradients_are_those_of_the_rounded_matrices(shape: tuple[int, ...]) -> None:
    x, w, b = drawn(*shape), drawn(64, shape[-1], seed=1), drawn(64, seed=2)
    g = drawn(*shape[:-1], 64, seed=3, spread=3.0)
    x8, w8, g8 = rounded(x.double(), "forward"), rounded(w.double(), "forward"), rounded(g.double(), "gradient")
    for each in (x, w, b):
        each.requires_grad_()
    y = fp8.linear(x, w, b)
    y.backward(g)
    assert close(y, x8 @ w8.T + b.double())
    assert close(x.grad, g8 @ w8)
    assert close(w.grad, g8.reshape(-1, 64).T @ x8.reshape(-1, shape[-1]))
    assert close(b.grad, g.double().reshape(-1, 64).sum(0))
    assert not close(y, F.linear(x, w, b).double()), "nothing was rounded"


def test_gradients_keep_their_range_and_values_their_bits() -> None:
    """E5M2 for gradients, E4M3 for what goes forward: with one in the place of the other both products differ."""
    x, w, g = drawn(16, 32, spread=3.0), drawn(16, 32, seed=1), drawn(16, 16, seed=3, spread=3.0)
    x.requires_grad_()
    y = fp8.linear(x, w, None)
    y.backward(g)
    wrong = [rounded(t.double(), kind) for t, kind in ((x.detach(), "gradient"), (w, "gradient"), (g, "forward"))]
    assert not close(y, wrong[0] @ wrong[1].T)
    assert not close(x.grad, wrong[2] @ rounded(w.double(), "forward"))


def test_a_scale_far_from_one_changes_nothing_but_the_scale() -> None:
    x, w = drawn(16, 32), drawn(16, 32, seed=1)
    assert torch.allclose(fp8.linear(x * 2.0**-40, w * 2.0**30, None) * 2.0**10, fp8.linear(x, w, None), rtol=1e-6)
    assert not fp8.linear(torch.zeros(16, 32), w, None).any()


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_is_not_hidden(bad: float) -> None:
    """The largest number of E4M3 would stand for it: the guard would never see it."""
    x, w = drawn(16, 32).requires_grad_(), drawn(16, 32, seed=1)
    broken = x.detach().clone()
    broken[3, 4] = bad
    assert not fp8.linear(broken, w, None).isfinite().all()
    g = drawn(16, 16, seed=2)
    g[0, 0] = bad
    fp8.linear(x, w, None).backward(g)
    assert x.grad is not None
    assert not x.grad.isfinite().all()


def test_a_frozen_weight_gets_no_gradient() -> None:
    x, w = drawn(16, 32).requires_grad_(), drawn(16, 32, seed=1)
    fp8.linear(x, w, None).sum().backward()
    assert x.grad is not None and w.grad is None


def test_it_is_the_layers_of_the_blocks_and_no_others() -> None:
    net = tiny.network()
    fp8.switch(net, True)
    swapped = {name for name, module in net.named_modules() if getattr(module, "product", linear) is fp8.linear}
    inside = {f"core.blocks.0.{part}" for part in
              ("attention.inner.q", "attention.inner.k", "attention.inner.v", "attention.inner.o",
               "mlp.inner.gate", "mlp.inner.up", "mlp.inner.down")}  # fmt: skip
    assert swapped == inside
    fp8.switch(net, False)
    assert all(getattr(module, "product", linear) is linear for module in net.modules())


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: Linear(32, 16),
    "lora": lambda: Lora(4, 8.0).beside(Linear(32, 16).requires_grad_(False), torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_gives_what_its_product_gives(kind: str) -> None:
    layer, x = LAYERS[kind](), drawn(16, 32)
    layer.product = lambda x, weight, bias: linear(x, weight, bias) + 1.0  # type: ignore[assignment]
    with torch.no_grad():
        before = layer(x)
    assert torch.allclose(layer(x), before + 1.0)
    assert torch.equal(layer.eval()(x), before)
