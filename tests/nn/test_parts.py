"""Dropout, masks, activations and the refusals of the config."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from danlu.nn.config import TransformerConfig
from danlu.nn.dropout import Dropout, use_generator
from danlu.nn.masks import segment_mask, segment_positions
from danlu.nn.mlp import KINDS, Mlp
from danlu.nn.positions import Rotary
from danlu.nn.transformer import Transformer

TINY: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "hidden": 24}


def transformer(**values: Any) -> Transformer:
    return Transformer(TransformerConfig(**(TINY | values))).double()


def test_one_config_of_at_most_twenty_fields() -> None:
    assert len(fields(TransformerConfig)) <= 20


@pytest.mark.parametrize(
    "wrong",
    [{"mlp": "gelu_fast"}, {"norm": "batch"}, {"placement": "mid"}, {"bias": "o"}, {"mask": "prefix"},
     {"qk_norm": "all"}, {"heads": 3, "kv_heads": 2}, {"head_dim": 7}, {"window": ()},
     {"position": Rotary(scaling="ntk")}],
)  # fmt: skip
def test_values_that_do_not_exist_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        TransformerConfig(**(TINY | wrong))


def test_dropout_repeats_with_its_generator() -> None:
    part, x = Dropout(0.25), torch.ones(40_000)
    with pytest.raises(ValueError, match="generator"):
        part(x)
    generator = torch.Generator().manual_seed(1)
    use_generator(part, generator)
    first, second = part(x), part(x)
    generator.manual_seed(1)
    assert part(x).equal(first)
    assert not first.equal(second)
    assert set(first.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    assert abs(float(first.mean()) - 1) < 0.02
    assert part.eval()(x) is x


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout"])
def test_dropout_acts_in_training_only(kind: str) -> None:
    torch_generator = torch.Generator().manual_seed(0)
    network, x = transformer(**{kind: 0.5}), torch.randn(1, 6, 16, dtype=torch.float64, generator=torch_generator)
    use_generator(network, torch_generator)
    still = network.eval()(x)
    assert network(x).equal(still)
    moved = network.train()(x)
    assert not moved.allclose(still)
    torch_generator.manual_seed(3)
    one = network(x)
    torch_generator.manual_seed(3)
    assert network(x).equal(one)


def test_a_copy_of_a_network_computes_the_same() -> None:
    network, x = transformer(dropout=0.1), torch.ones(1, 4, 16, dtype=torch.float64)
    use_generator(network, torch.Generator())
    assert copy.deepcopy(network).eval()(x).equal(network.eval()(x))


def test_casting_a_network_leaves_its_angles_exact() -> None:
    """Rotary frequencies are no buffers: bf16 would round positions beyond 256 to each other."""
    network = transformer()
    kept = network._frequencies[0].clone()
    assert network.to(torch.bfloat16)._frequencies[0].equal(kept)


def test_segments() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 2, 0], [0, 0, 1, 1, 1, 1]])
    mask = segment_mask(segments)
    assert mask is not None
    assert mask.shape == (2, 1, 6, 6)
    assert mask[0, 0, 3].tolist() == [False, False, True, True, True, False]
    assert mask[1, 0, 0].tolist() == [True, True, False, False, False, False]
    assert segment_positions(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 2, 3]]
    assert segment_mask(torch.ones(3, 5, dtype=torch.long)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mlp(kind: str) -> None:
    formulas = {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
        "relu": F.relu,
        "relu2": lambda x: F.relu(x) ** 2,
        "silu": lambda x: x / (1 + torch.exp(-x)),
        "swiglu": F.silu,
        "geglu": F.gelu,
        "geglu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "reglu": F.relu,
    }
    part = Mlp(8, 12, kind, bias=True)
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    inner = part.up(x)
    inner = formulas[kind](inner) if part.gate is None else formulas[kind](part.gate(x)) * inner
    assert torch.allclose(part(x), F.linear(inner, part.down.weight, part.down.bias), atol=1e-6)
    assert (part.gate is not None) == kind.endswith(("glu", "glu_tanh"))


def test_matrices_in_bf16_with_vectors_in_fp32() -> None:
    """What training computes with: the output is bf16, and every parameter gets a gradient of its own dtype."""
    network = transformer(bias="all", norm="layer", mlp="gelu", position=None, memory=12).float()
    for p in network.parameters():
        if p.ndim > 1:
            p.data = p.data.bfloat16()
    out = network(torch.ones(1, 4, 16).bfloat16(), memory=torch.ones(1, 5, 12).bfloat16())
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in network.parameters())
