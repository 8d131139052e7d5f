"""Our optimizers against torch's, step by step, and Muon against the singular value decomposition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from danlu.config import Train
from danlu.train import optim
from danlu.train.optim import OPTIMIZERS, Named

SHAPES = {
    "core.blocks.0.q": (6, 4),
    "core.blocks.0.k": (6, 4),
    "core.blocks.1.o": (4, 6),
    "embed": (9, 4),
    "norm": (4,),
}
STEPS = 20


def weights(dtype: torch.dtype) -> Named:
    random = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=random, dtype=dtype) for name, shape in SHAPES.items()}


def gradients(dtype: torch.dtype) -> list[Named]:
    """Twenty steps of noise of very different sizes."""
    random = torch.Generator().manual_seed(2)
    sizes = [10.0 ** (step % 5 - 3) for step in range(STEPS)]
    shaped = SHAPES.items()
    return [{n: torch.randn(s, generator=random, dtype=dtype) * size for n, s in shaped} for size in sizes]


def ours(
    kind: str, dtype: torch.dtype, train: Train, decay: float = 0.0, lr: float = 0.03, products: Any = torch.float32
) -> Named:
    params = weights(dtype)
    optimizer = OPTIMIZERS[kind](params, train, decay, products)
    for step, grads in enumerate(gradients(dtype)):
        optim.penalise(grads, params, train.l1, train.l2)
        optimizer.step(grads, lr / (1 + step))
    return params


def theirs(
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer], dtype: torch.dtype, lr: float = 0.03
) -> Named:
    """torch's result; `make` gets the matrices and the vectors as two groups."""
    params = {name: torch.nn.Parameter(tensor) for name, tensor in weights(dtype).items()}
    groups = [[p for p in params.values() if p.ndim == 2], [p for p in params.values() if p.ndim < 2]]
    optimizer = make([{"params": group} for group in groups])
    for step, grads in enumerate(gradients(dtype)):
        for group in optimizer.param_groups:
            group["lr"] = lr / (1 + step)
        for name, p in params.items():
            p.grad = grads[name].clone()
        optimizer.step()
    return {name: p.detach() for name, p in params.items()}


def difference(a: Named, b: Named) -> float:
    """The largest difference, relative to how far the weights have moved."""
    start = weights(next(iter(a.values())).dtype)
    return max(float((a[n] - b[n]).norm() / (b[n] - start[n]).norm()) for n in a)


DECAYED = [0.4, 0.0]  # torch's groups: matrices and vectors
CASES: dict[str, tuple[str, Train, float, Any]] = {
    "sgd": ("sgd", Train(momentum=0.8), 0.0, lambda g: torch.optim.SGD(g, lr=1, momentum=0.8)),
    "plain sgd": ("sgd", Train(momentum=0.0), 0.0, lambda g: torch.optim.SGD(g, lr=1)),
    "sgd with l2": (
        "sgd",
        Train(l2=0.4),
        0.0,
        lambda g: torch.optim.SGD(
            [{**x, "weight_decay": d} for x, d in zip(g, DECAYED, strict=True)], lr=1, momentum=0.9
        ),
    ),
    "rmsprop": ("rmsprop", Train(), 0.0, lambda g: torch.optim.RMSprop(g, lr=1, alpha=0.99)),
    "adam": ("adam", Train(beta1=0.8, beta2=0.9), 0.0, lambda g: torch.optim.Adam(g, lr=1, betas=(0.8, 0.9))),
    "adam never decays": ("adam", Train(), 0.4, lambda g: torch.optim.Adam(g, lr=1, betas=(0.9, 0.95))),
    "adamw": (
        "adamw",
        Train(),
        0.4,
        lambda g: torch.optim.AdamW(
            [{**x, "weight_decay": d} for x, d in zip(g, DECAYED, strict=True)], lr=1, betas=(0.9, 0.95)
        ),
    ),
}


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_torch(case: str, dtype: torch.dtype, limit: float) -> None:
    kind, train, decay, make = CASES[case]
    assert difference(ours(kind, dtype, train, decay), theirs(make, dtype)) < limit


@pytest.mark.parametrize("case", CASES)
def test_the_comparison_sees_small_changes(case: str) -> None:
    kind, train, decay, make = CASES[case]
    assert difference(ours(kind, torch.float64, train, decay, lr=0.0300001), theirs(make, torch.float64)) > 1e-7


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adamw", "muon"])
def test_decay_is_decoupled_and_spares_vectors(kind: str) -> None:
    params = weights(torch.float64)
    optimizer = OPTIMIZERS[kind](params, Train(), 0.5)
    still = {name: torch.zeros_like(p) for name, p in params.items()}
    for _ in range(3):
        optimizer.step(still, 0.1)
    for name, start in weights(torch.float64).items():
        rate = 0.1 * (optimizer.rest_lr if isinstance(optimizer, optim.Muon) and name == "embed" else 1.0)
        shrunk = start * (1 - rate * 0.5) ** 3 if start.ndim == 2 else start
        torch.testing.assert_close(params[name], shrunk, rtol=1e-12, atol=0)


# --- Muon ---


@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32), (1, 8)])
def test_orthogonalised_is_near_the_nearest_orthogonal_matrix(shape: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(3)
    batch = torch.randn(3, *shape, generator=random)
    left, _, right = torch.linalg.svd(batch, full_matrices=False)
    found = optim.in_blocks(batch, 0)
    assert found.dtype == torch.float32
    for ours_, exact in zip(found, left @ right, strict=True):
        singular = torch.linalg.svdvals(ours_)
        assert float(singular.max()) < 1.25
        if shape[0] != shape[1]:  # a square one may have directions of nearly no size
            assert float(singular.min()) > 0.6
        assert float((ours_ * exact).sum() / (ours_.norm() * exact.norm())) > 0.95


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32), (24, 8)])
def test_the_iteration_is_a_polynomial_of_the_singular_values(
    shape: tuple[int, int], dtype: torch.dtype, close: float
) -> None:
    """As exactly as the matrices are: the same polynomial, of the values of a decomposition in float64."""
    batch = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, values, right = torch.linalg.svd(batch, full_matrices=False)
    values = values / (values.norm(dim=-1, keepdim=True) + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    found = optim.in_blocks(batch.to(dtype), 0)
    assert found.dtype == dtype
    assert float((found.double() - left * values[:, None] @ right).abs().max()) < close


@pytest.mark.parametrize("columns", [64, 640])
def test_a_matrix_of_few_directions_gets_no_others(columns: int) -> None:
    """What rounding makes of eigenvalues of 0 does not grow, whichever way the iteration is done."""
    random = torch.Generator().manual_seed(6)
    few = torch.randn(1, 32, 2, generator=random) @ torch.randn(1, 2, columns, generator=random)
    found = optim.in_blocks(few, 0)[0].double()
    left, _, right = torch.linalg.svd(few[0].double(), full_matrices=False)
    inside = left[:, :2] @ (left[:, :2].mT @ found @ right[:2].mT) @ right[:2]
    assert float((found - inside).norm() / found.norm()) < 1e-3
    sizes = torch.linalg.svdvals(found)
    assert sizes[0] < 1.25
    assert sizes[1] > 0.6


@pytest.mark.parametrize("rank", [2, 8, 128])
def test_wide_matrices_are_as_exact_in_bf16_as_by_the_iteration(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few directions, too, where the polynomial is large and rounding it would tell."""
    random = torch.Generator().manual_seed(7)
    sizes = torch.logspace(0, -2, rank)
    batch = torch.randn(1, 128, rank, generator=random) * sizes @ torch.randn(1, rank, 1152, generator=random)
    exact = optim.orthogonalised(batch.bfloat16().double())
    wide = optim.orthogonalised(batch.bfloat16()).double()
    monkeypatch.setattr(optim, "_WIDE", 10**6)
    assert (wide - exact).norm() < (optim.orthogonalised(batch.bfloat16()).double() - exact).norm()


def test_orthogonalised_knows_no_size_and_no_neighbours() -> None:
    random = torch.Generator().manual_seed(4)
    batch = torch.randn(2, 12, 5, generator=random)
    found = optim.in_blocks(batch, 0)
    torch.testing.assert_close(optim.in_blocks(batch * 2**20, 0), found, rtol=0.02, atol=0.01)
    torch.testing.assert_close(optim.in_blocks(batch[1:], 0)[0], found[1], rtol=0, atol=0)
    assert torch.isfinite(optim.in_blocks(torch.zeros(1, 4, 4), 0)).all()


@pytest.mark.parametrize(
    ("rows", "block", "sizes"), [(12, 4, [4, 4, 4]), (10, 4, [4, 4, 2]), (7, 9, [7]), (5, 1, [1] * 5)]
)
@pytest.mark.parametrize("tall", [False, True])
def test_blocks_of_rows_are_orthogonalised_each_for_itself(rows: int, block: int, sizes: list[int], tall: bool) -> None:
    batch = torch.randn(2, rows, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    alone = torch.cat([optim.orthogonalised(part) for part in batch.split(sizes, 1)], 1)
    found = optim.in_blocks(batch.mT if tall else batch, block)
    torch.testing.assert_close(found.mT if tall else found, alone, rtol=1e-12, atol=1e-12)


def test_the_operations_of_blocks_are_counted() -> None:
    params = {"blocks.0.w": torch.zeros(512, 64, 3, 3), "blocks.1.w": torch.zeros(48, 100), "head": torch.zeros(9, 9)}
    whole = 5 * (4 * 512**2 * 576 + 2 * 512**3) + 5 * (4 * 48**2 * 100 + 2 * 48**3)
    halves = 2 * 5 * (4 * 256**2 * 576 + 2 * 256**3) + 5 * (4 * 48**2 * 100 + 2 * 48**3)
    assert (optim.orthogonalising(params), optim.orthogonalising(params, 300)) == (whole, halves)


@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_muon_is_torchs(decay: float) -> None:
    """Both iterate in bf16, ours on a batch: they agree as far as bf16 does."""
    found = ours("muon", torch.float32, Train(), decay, products=torch.bfloat16)
    inner = [name for name in SHAPES if "blocks" in name]
    expected = theirs_muon(decay)
    start = weights(torch.float32)
    for name in inner:
        assert float((found[name] - expected[name]).norm() / (expected[name] - start[name]).norm()) < 0.04, name
    with pytest.MonkeyPatch.context() as patch:  # another momentum would be told apart
        patch.setattr(optim.Muon, "momentum", 0.8)
        other = ours("muon", torch.float32, Train(), decay, products=torch.bfloat16)
    assert max(float((other[n] - expected[n]).norm() / (expected[n] - start[n]).norm()) for n in inner) > 0.08


def theirs_muon(decay: float) -> Named:
    params = {name: torch.nn.Parameter(p) for name, p in weights(torch.float32).items() if "blocks" in name}
    optimizer = torch.optim.Muon(list(params.values()), lr=1.0, weight_decay=decay, momentum=0.95)
    for step, grads in enumerate(gradients(torch.float32)):
        optimizer.param_groups[0]["lr"] = 0.03 / (1 + step)
        for name, p in params.items():
            p.grad = grads[name].clone()
        optimizer.step()
    return {name: p.detach() for name, p in params.items()}


def test_filters_are_rows_of_one_matrix() -> None:
    """A kernel (6, 2, 3, 3) moves as the matrix (6, 18) does."""
    drawn = torch.Generator().manual_seed(5)
    kernel, pushes = torch.randn(6, 2, 3, 3, generator=drawn), torch.randn(4, 6, 2, 3, 3, generator=drawn)
    matrix = kernel.flatten(1).clone()
    one, other = (optim.Muon({"blocks.0.conv": p}, Train(), 0.1) for p in (kernel, matrix))
    for push in pushes:
        one.step({"blocks.0.conv": push}, 0.03)
        other.step({"blocks.0.conv": push.flatten(1)}, 0.03)
    assert torch.equal(kernel.flatten(1), matrix) and not one.rest.params


def test_muon_leaves_the_rest_to_adamw_at_a_share_of_the_rate() -> None:
    share = optim.Muon({}, Train(), 0.0).rest_lr
    found, alone = (
        ours("muon", torch.float64, Train(), 0.4),
        ours("adamw", torch.float64, Train(), 0.4, lr=0.03 * share),
    )
    for name in ("embed", "norm"):
        torch.testing.assert_close(found[name], alone[name], rtol=1e-12, atol=0)


# --- state ---


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_restored_state_goes_on_bit_by_bit(kind: str) -> None:
    grads, straight = gradients(torch.float32), weights(torch.float32)
    first = OPTIMIZERS[kind](straight, Train(), 0.1)
    for each in grads[:8]:
        first.step(each, 0.01)
    saved = {name: tensor.clone() for name, tensor in first.state.items()}
    resumed = {name: tensor.clone() for name, tensor in straight.items()}
    second = OPTIMIZERS[kind](resumed, Train(), 0.1)
    second.restore(saved)
    second.step_count = first.step_count
    for each in grads[8:]:
        first.step(each, 0.01)
        second.step(each, 0.01)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert all(torch.equal(first.state[name], second.state[name]) for name in saved)
    assert set(first.names) == set(SHAPES)


# --- clipping and penalties ---


@pytest.mark.parametrize("limit", [0.5, 3.0, 1e6, 0.0])
def test_clipping_is_torchs(limit: float) -> None:
    grads = list(gradients(torch.float64)[3].values())
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    norm = torch.nn.utils.clip_grad_norm_(params, limit or float("inf"))
    assert optim.clip(grads, limit) == pytest.approx(float(norm), rel=1e-12)
    for p, g in zip(params, grads, strict=True):
        torch.testing.assert_close(g, p.grad, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_norm_tells_what_is_not_finite(bad: float) -> None:
    import math

    tensors = [torch.ones(2), torch.tensor([1.0, bad])]
    assert not math.isfinite(optim.clip(tensors, 1.0))


def test_penalties_are_gradients_of_what_they_say() -> None:
    params = {name: p.requires_grad_() for name, p in weights(torch.float64).items()}
    penalty = sum(
        (0.3 * p.abs().sum() + 0.7 * p.square().sum() / 2 for p in params.values() if p.ndim == 2), torch.zeros(())
    )
    expected = dict(zip(params, torch.autograd.grad(penalty, list(params.values()), allow_unused=True), strict=True))
    found = {name: torch.zeros_like(p) for name, p in params.items()}
    optim.penalise(found, {name: p.detach() for name, p in params.items()}, 0.3, 0.7)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if expected[name] is None else expected[name])
