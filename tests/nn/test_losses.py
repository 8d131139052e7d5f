"""The chunked loss against torch's, and against finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from danlu.nn import losses
from danlu.nn.losses import chunked_cross_entropy, token_losses

IGNORE = -100


def problem(tokens: int, width: int, vocab: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(tokens, width, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab, width, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    targets[::7] = IGNORE
    return hidden, weight, targets


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("chunk", [0, 1, 37, 64, 1000])
@pytest.mark.parametrize("block", [1, 5000, losses.BLOCK_LOGITS])
def test_equal_to_torch_in_float64(chunk: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "BLOCK_LOGITS", block)
    hidden, weight, targets = problem(150, 24, 301, torch.float64)
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum", ignore_index=IGNORE)
    found = chunked_cross_entropy(hidden, weight, targets, chunk=chunk)
    assert relative(found, expected) <= 1e-14
    gradients = torch.autograd.grad(found * 0.3, [hidden, weight])
    wanted = torch.autograd.grad(expected * 0.3, [hidden, weight])
    assert max(map(relative, gradients, wanted)) <= 1e-12


def test_gradient_is_that_of_finite_differences() -> None:
    hidden, weight, targets = problem(9, 5, 11, torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: chunked_cross_entropy(h, w, targets, chunk=4), (hidden, weight))
    bias = torch.randn(len(weight), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda h, w, b: chunked_cross_entropy(h, w, targets, bias=b, chunk=4), (hidden, weight, bias)
    )
    biased = chunked_cross_entropy(hidden, weight, targets, bias=bias)
    known = torch.nn.functional.cross_entropy(hidden @ weight.T + bias, targets, reduction="sum")
    assert torch.allclose(biased, known)


def test_bf16_is_as_good_as_its_numbers() -> None:
    """The sum is fp32; gradients differ from those of the same bf16 values in float64 by bf16's rounding only."""
    hidden, weight, targets = problem(300, 32, 500, torch.bfloat16)
    wide = [hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()]
    expected = F.cross_entropy(wide[0] @ wide[1].T, targets, reduction="sum", ignore_index=IGNORE)
    expected.backward()
    found = chunked_cross_entropy(hidden, weight, targets, chunk=50)
    found.backward()
    assert found.dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    assert relative(found, expected) <= 2e-3
    assert relative(hidden.grad, wide[0].grad) <= 0.01
    assert relative(weight.grad, wide[1].grad) <= 0.01


def test_tiny_probabilities_keep_a_finite_loss() -> None:
    """A share that underflows to 0 in fp32 still has its exact loss."""
    hidden = torch.tensor([[1.0]]).requires_grad_()
    weight = torch.tensor([[0.0], [500.0]]).requires_grad_()
    loss = chunked_cross_entropy(hidden, weight, torch.tensor([0]))
    assert loss.item() == 500.0


def test_nothing_counted_is_zero_with_zero_gradients() -> None:
    hidden, weight, _ = problem(5, 4, 7, torch.float32)
    loss = chunked_cross_entropy(hidden, weight, torch.full((5,), IGNORE))
    loss.backward()
    assert loss.item() == 0.0
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_a_frozen_table_gets_no_gradient() -> None:
    hidden, weight, targets = problem(20, 4, 7, torch.float64)
    chunked_cross_entropy(hidden, weight.detach(), targets).backward()
    assert hidden.grad.any()
    assert weight.grad is None


def test_losses_by_token_for_evaluation() -> None:
    hidden, weight, targets = problem(90, 16, 60, torch.float64)
    targets = targets.clamp(min=0)
    found, hits = token_losses(hidden, weight, targets, chunk=32)
    logits = (hidden @ weight.T).detach()
    assert relative(found, F.cross_entropy(logits, targets, reduction="none")) <= 1e-14
    assert hits.equal(logits.argmax(-1) == targets)
    assert not found.requires_grad


class Sizes(TorchDispatchMode):
    """The sizes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[torch.Size, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.mm:
            self.seen.add(tuple(each.shape for each in args))
        return func(*args, **(kwargs or {}))


def test_few_sizes_of_products_however_many_tokens_count() -> None:
    """A product of a new size costs oneDNN code that it keeps: memory would grow with every step."""
    weight, sizes = torch.randn(50, 8, requires_grad=True), Sizes()
    for count in range(257, 380, 7):
        hidden, targets = torch.randn(count, 8, requires_grad=True), torch.randint(50, (count,))
        with sizes:
            loss = chunked_cross_entropy(hidden, weight, targets, ignore=None)
            loss.backward()
            each, _ = token_losses(hidden, weight, targets)
        wanted = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
        assert torch.allclose(loss, wanted.sum(), rtol=1e-5)
        assert torch.allclose(each, wanted, atol=1e-5)
        assert hidden.grad is not None
        assert relative(hidden.grad, torch.autograd.grad(wanted.sum(), hidden)[0]) < 1e-5
    assert len(sizes.seen) == 3
