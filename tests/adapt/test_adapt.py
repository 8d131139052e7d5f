"""Freezing, adapting and quantizing change what they should and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu import adapt
from danlu.adapt import quantize as quantizing
from danlu.adapt.fold import merge, merged_state
from danlu.adapt.lora import LowRank
from danlu.adapt.quantize import Int8Linear, product, quantize, widened_product
from danlu.errors import UserError
from danlu.models import family
from danlu.models.architecture import build
from danlu.nn.generate import Sampling, generate
from danlu.nn.network import Network

VOCAB = 90


def network(name: str = "gpt", **options: Any) -> Network:
    made = build(family(name).preset(VOCAB, 64, 3, width=64, heads=4, **options), torch.Generator().manual_seed(1))
    for p in made.parameters():
        if p.ndim > 1:
            p.data *= 2
    return made.eval()


def batch(rows: int = 2, length: int = 20) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))}


@torch.no_grad()
def logits(net: Network, rows: int = 2, length: int = 20) -> Tensor:
    return net(batch(rows, length)).float()


def size_bytes(net: Network) -> int:
    """What the network's tensors take on disk."""
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())


def trainable(net: Network) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


# --- freeze ---


@pytest.mark.parametrize("tied", [True, False])
def test_tuning_the_end_only(tied: bool) -> None:
    table = "embed.tokens.weight" if tied else "head.output.weight"
    full, head, last = (adapt.apply(network(tied=tied), adapt.short(tune), 0) for tune in ("full", "head", "last-2"))
    assert trainable(full) == {name for name, _ in full.named_parameters()}
    assert trainable(head) == {"core.norm.weight", table}
    blocks = {name.split(".")[2] for name in trainable(last) if "blocks" in name}
    assert blocks == {"1", "2"}
    assert (table in trainable(last)) is not tied
    assert "core.norm.weight" in trainable(last)


def test_frozen_parts_get_no_gradient() -> None:
    net = adapt.apply(network(), adapt.short("last-1"), 0)
    net(batch()).sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == trainable(net)


# --- lora ---


def tuned(name: str = "gpt") -> Network:
    """Adapters with something in them."""
    net = adapt.apply(network(name), [{"kind": "lora", "rank": 4, "alpha": 12.0}], seed=3)
    generator = torch.Generator().manual_seed(4)
    for p in net.parameters():
        if p.requires_grad:
            p.data.normal_(0, 0.3, generator=generator)
    return net


@pytest.mark.parametrize("name", ["gpt", "gpt2"])
def test_adapters_begin_as_nothing_and_merge_into_the_same_logits(name: str) -> None:
    plain = network(name)
    assert logits(adapt.apply(network(name), adapt.short("lora"), 0)).equal(logits(plain))
    net = tuned(name)
    expected = logits(net)
    assert (expected - logits(plain)).abs().max() > 0.1
    plain.load_state_dict(merged_state(net, net.state_dict()))
    assert torch.allclose(logits(plain), expected, atol=1e-4)
    assert torch.allclose(logits(merge(net)), expected, atol=1e-4)
    assert not any(isinstance(part, LowRank) for part in net.modules())


def test_only_the_adapters_learn_and_they_are_small() -> None:
    net = tuned()
    state = {name: tensor for name, tensor in net.state_dict().items() if "lora_" in name}
    assert trainable(net) == state.keys()
    assert len(state) == 2 * 7 * 3
    assert sum(t.numel() for t in state.values()) < 0.3 * sum(t.numel() for t in network().state_dict().values())
    assert set(net.state_dict()) - set(state) == set(network().state_dict())


def test_adapters_where_they_are_asked_for() -> None:
    net = adapt.apply(network(), [{"kind": "lora", "targets": ["q", "v"]}], 0)
    assert {name.split(".")[-2] for name in trainable(net)} == {"q", "v"}


@pytest.mark.parametrize(
    "entry",
    [{"kind": "prune"}, {}, {"kind": "lora", "rnk": 4}, {"kind": "lora", "rank": 0}, {"kind": "lora", "targets": ["x"]},
     {"kind": "freeze", "keep_last": -1}, {"kind": "freeze", "keep_last": True}, {"kind": "freeze", "keep_last": 1.0},
     *({"kind": "lora", "alpha": alpha} for alpha in ("x", 0, -1.0, True, float("nan"), float("inf"))),
     *({"kind": "lora", "targets": targets} for targets in ("qv", [], 3, [["q"]], [1])), {"kind": "lora", "rank": 8.0}],
)  # fmt: skip
def test_adapters_that_do_not_exist_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        adapt.apply(network(), [entry], 0)
    assert caught.value.code == "E120"


# --- quantize ---


@pytest.mark.parametrize(("name", "options"), [("gpt", {}), ("gpt", {"tied": False, "kv_heads": 2}), ("gpt2", {})])
def test_int8_stays_close_in_a_quarter_of_the_size(name: str, options: dict[str, Any]) -> None:
    plain = network(name, **options)
    small = quantize(copy.deepcopy(plain))
    expected, found = logits(plain), logits(small)
    assert float((found - expected).norm() / expected.norm()) < 0.05
    assert size_bytes(small) < 0.35 * size_bytes(plain)
    codes = [tensor for key, tensor in small.state_dict().items() if key.endswith("codes")]
    assert codes
    assert all(tensor.dtype == torch.int8 for tensor in codes)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_state_gives_the_same_logits(tied: bool) -> None:
    small = quantize(network(tied=tied))
    state = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    assert len({tensor.data_ptr() for tensor in small.state_dict().values()}) == len(state)  # no tensor twice
    other = build(family("gpt").preset(VOCAB, 64, 3, width=64, heads=4, tied=tied), torch.Generator().manual_seed(9))
    other = quantize(other).eval()
    other.load_state_dict(state)
    assert logits(other).equal(logits(small))
    assert logits(copy.deepcopy(small)).equal(logits(small))


def test_adapters_are_merged_before_quantizing() -> None:
    assert logits(quantize(tuned())).equal(logits(quantize(merge(tuned()))))
    assert not logits(quantize(tuned())).equal(logits(quantize(network())))


def test_it_generates() -> None:
    small = quantize(network())
    assert len(list(generate(small, [1, 2, 3], Sampling(max_tokens=8), end_ids=()))) == 8


@pytest.mark.parametrize("inputs", [32, 64, 192, 24, 100])
@pytest.mark.parametrize("rows", [1, 2, 5, 12, 13, 70])
def test_the_kernel_equals_plain_operations(inputs: int, rows: int) -> None:
    """Lengths that the kernel would read past the end of (24, 100) take the plain way."""
    generator = torch.Generator().manual_seed(inputs)
    codes = torch.randint(-127, 128, (51, inputs), dtype=torch.int8, generator=generator)
    scales = torch.rand(51, generator=generator).bfloat16()
    x = torch.randn(rows, inputs, generator=generator).bfloat16()
    exact = x.double() @ codes.double().T * scales.double()
    for found in (product(x, codes, scales), widened_product(x, codes, scales)):
        assert found.dtype == torch.bfloat16
        assert float((found.double() - exact).norm() / exact.norm()) < 0.004


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    """As it would if the activations of a batch shared a scale."""
    layer = Int8Linear(torch.nn.Linear(64, 40))
    x = torch.randn(quantizing.KERNEL_ROWS, 64, generator=torch.Generator())
    louder = x.clone()
    louder[1:] *= 1000
    assert layer(x)[0].equal(layer(louder)[0])
    assert layer(x)[0].equal(layer(x[:1])[0])


def test_an_empty_row_of_weights_is_zero() -> None:
    layer = torch.nn.Linear(32, 3, bias=False)
    layer.weight.data[1] = 0
    assert Int8Linear(layer)(torch.ones(1, 32))[0, 1] == 0
