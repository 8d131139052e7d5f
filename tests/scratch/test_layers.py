"""Every layer against central differences and torch's own, with all parameters random."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danlu.scratch import activations, losses
from danlu.scratch.attention import GroupedQueryAttention, MultiHeadAttention, causal, scaled_dot_product
from danlu.scratch.dropout import Dropout
from danlu.scratch.embedding import Embedding
from danlu.scratch.encoder import EncoderLayer
from danlu.scratch.linear import Linear
from danlu.scratch.mlp import MLP, SwiGLU
from danlu.scratch.module import Module
from danlu.scratch.norms import LayerNorm, RMSNorm
from danlu.scratch.positions import Rotary, rotate
from danlu.scratch.tensor import Tensor
from tests.conftest import ROOT
from tests.scratch.gradients import (
    check_differences,
    check_parameters,
    check_torch,
    check_torch_parameters,
    draw,
    leaves,
    randomise,
    rng,
)

ACTIVATIONS: dict[str, Callable] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softmax": lambda x: x.softmax(-1),
}
MASK = np.array([[[[True, True, True, False]]], [[[True, True, False, False]]]])  # (B, 1, 1, T)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    ours = getattr(activations, name)
    check_differences(ours, draw((3, 5)))
    check_torch(ours, ACTIVATIONS[name], draw((3, 5)))


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softmax", "silu", "gelu"])
def test_activations_survive_large_numbers(name: str) -> None:
    check_torch(getattr(activations, name), ACTIVATIONS[name], [np.array([[-1000.0, -30.0, 0.5, 1000.0]])])


def torch_of(layer: Module, theirs: nn.Module) -> nn.Module:
    """torch's layer in float64 with our weights."""
    theirs.double().load_state_dict({n: torch.from_numpy(p.data.copy()) for n, p in layer.parameters().items()})
    return theirs


def check_layer(layer: Module, theirs: Callable, x: np.ndarray) -> None:
    """Input and parameters by central differences; input and outputs against torch."""
    check_parameters(layer, Tensor(x))
    check_differences(layer, [x])
    check_torch(layer, theirs, [x])


def check_against(layer: Module, theirs: nn.Module, x: np.ndarray) -> None:
    randomise(layer)
    module = torch_of(layer, theirs)
    check_layer(layer, module, x)
    module.zero_grad()
    check_torch_parameters(layer, [Tensor(x)], module(torch.from_numpy(x)), dict(module.named_parameters()))


def test_linear() -> None:
    check_against(Linear(4, 3, rng()), nn.Linear(4, 3), *draw((5, 4)))
    check_against(Linear(4, 3, rng(), bias=False), nn.Linear(4, 3, bias=False), *draw((2, 5, 4)))


def test_norms() -> None:
    check_against(LayerNorm(6), nn.LayerNorm(6), *draw((2, 3, 6)))
    check_against(RMSNorm(6), nn.RMSNorm(6, eps=1e-6), *draw((2, 3, 6)))


def test_mlp() -> None:
    net, (x,) = MLP((4, 6, 5, 3), rng()), draw((7, 4))
    randomise(net)
    state = leaves(net)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        for i in range(3):
            x = F.linear(x.relu() if i else x, state[f"layers.{i}.weight"], state[f"layers.{i}.bias"])
        return x

    check_layer(net, theirs, x)
    check_torch_parameters(net, [Tensor(x)], theirs(torch.from_numpy(x)), forgotten(state))


def forgotten(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for tensor in state.values():
        tensor.grad = None
    return state


def test_swiglu() -> None:
    net, (x,) = SwiGLU(4, 6, rng()), draw((2, 3, 4))
    state = leaves(net)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        gate, up, down = (state[f"{name}.weight"] for name in ("gate", "up", "down"))
        return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T

    check_layer(net, theirs, x)
    check_torch_parameters(net, [Tensor(x)], theirs(torch.from_numpy(x)), forgotten(state))


def test_embedding_both_ways() -> None:
    """A table of its own, and tied: then its gradient comes from both ends."""
    ids = np.array([[1, 2, 1], [6, 0, 1]])
    for tied in (False, True):
        table = Embedding(7, 4, rng())
        randomise(table)
        layer = Tied(table) if tied else table
        state = leaves(layer)
        (weight,) = state.values()
        found = F.embedding(torch.from_numpy(ids), weight)
        check_parameters(layer, ids)
        check_torch_parameters(layer, [ids], found @ weight.T if tied else found, state)
    (x,) = draw((2, 3, 4))
    check_differences(table.scores, [x])
    check_torch(table.scores, lambda x: x @ weight.detach().T, [x])


class Tied(Module):
    """In by the table, out by the same."""

    def __init__(self, table: Embedding):
        self.table = table

    def forward(self, ids: np.ndarray) -> Tensor:
        return self.table.scores(self.table(ids))


def test_rotary_is_a_rotation_in_the_complex_plane() -> None:
    positions = np.array([0, 1, 5, 300])
    frequencies = 1e4 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    turn = torch.exp(1j * torch.from_numpy(positions)[:, None] * frequencies)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        z = torch.complex(x[..., :4], x[..., 4:]) * turn
        return torch.cat((z.real, z.imag), -1)

    def ours(x: Tensor) -> Tensor:
        return rotate(x, Rotary(8)(positions))

    check_differences(ours, draw((2, 4, 8)))
    check_torch(ours, theirs, draw((2, 4, 8)))


@pytest.mark.parametrize("mask", [None, causal(4)], ids=["full", "causal"])
def test_scaled_dot_product(mask: np.ndarray | None) -> None:
    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product(q, k, v, mask)

    def theirs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=mask is not None)

    arrays = draw((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5))
    check_differences(ours, arrays)
    check_torch(ours, theirs, arrays)


def test_multi_head_attention() -> None:
    layer = MultiHeadAttention(6, 2, rng())
    randomise(layer)
    theirs = nn.MultiheadAttention(6, 2, batch_first=True).double()
    _load_attention(theirs, layer)
    padding = torch.from_numpy(~MASK[:, 0, 0])
    (x,) = draw((2, 4, 6))
    check_differences(lambda x: layer(x, MASK), [x])
    check_parameters(layer, Tensor(x), MASK)
    check_torch(lambda x: layer(x, MASK), lambda x: theirs(x, x, x, key_padding_mask=padding)[0], [x])
    theirs.zero_grad()
    y = torch.from_numpy(x)
    state = _attention_gradients(theirs)
    check_torch_parameters(layer, [Tensor(x), MASK], theirs(y, y, y, key_padding_mask=padding)[0], state)


def _attention_gradients(theirs: nn.MultiheadAttention) -> dict[str, Callable[[], torch.Tensor]]:
    """Where our gradients stand in torch's."""
    found: dict[str, Callable[[], torch.Tensor]] = {}
    for kind, packed in (("weight", theirs.in_proj_weight), ("bias", theirs.in_proj_bias)):
        for i, name in enumerate("qkv"):
            found[f"{name}.{kind}"] = lambda packed=packed, i=i: packed.grad.chunk(3)[i]
        found[f"o.{kind}"] = lambda kind=kind: getattr(theirs.out_proj, kind).grad
    return found


def _load_attention(theirs: nn.MultiheadAttention, layer: MultiHeadAttention) -> None:
    """torch keeps q, k and v in one matrix."""
    parts = [layer.q, layer.k, layer.v]
    weights = np.concatenate([part.weight.data for part in parts])
    biases = np.concatenate([part.bias.data for part in parts if part.bias is not None])
    assert layer.o.bias is not None
    state = {"in_proj_weight": weights, "in_proj_bias": biases}
    state |= {"out_proj.weight": layer.o.weight.data, "out_proj.bias": layer.o.bias.data}
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_query_attention(kv_heads: int) -> None:
    layer = GroupedQueryAttention(6, 4, kv_heads, 4, rng())
    randomise(layer)
    turn, mask = Rotary(4)(np.arange(3)), causal(3)[None, None]
    weights = leaves(layer)

    def heads(x: torch.Tensor, name: str) -> torch.Tensor:
        return (x @ weights[f"{name}.weight"].T).unflatten(-1, (-1, 4)).transpose(1, 2)

    def turned(x: torch.Tensor, name: str) -> torch.Tensor:
        x = F.rms_norm(heads(x, name), (4,), weights[f"{name}_norm.weight"], 1e-6)
        z = torch.complex(x[..., :2], x[..., 2:]) * torch.complex(*map(torch.from_numpy, turn))
        return torch.cat((z.real, z.imag), -1)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        mixed = F.scaled_dot_product_attention(
            turned(x, "q"), turned(x, "k"), heads(x, "v"), is_causal=True, enable_gqa=True
        )
        return mixed.transpose(1, 2).flatten(2) @ weights["o.weight"].T

    (x,) = draw((2, 3, 6))
    check_parameters(layer, Tensor(x), turn, mask)
    check_differences(lambda x: layer(x, turn, mask), [x])
    check_torch(lambda x: layer(x, turn, mask), theirs, [x])
    check_torch_parameters(layer, [Tensor(x), turn, mask], theirs(torch.from_numpy(x)), forgotten(weights))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer(activation: str) -> None:
    layer = EncoderLayer(6, 2, 8, rng(), activation=getattr(activations, activation))
    randomise(layer)
    theirs = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, activation=activation, batch_first=True).double()
    _load_attention(theirs.self_attn, layer.attention)
    rest = {"mlp.layers.0": "linear1", "mlp.layers.1": "linear2", "norm1": "norm1", "norm2": "norm2"}
    state = {n: torch.from_numpy(p.data) for n, p in layer.parameters().items() if not n.startswith("attention")}
    state = {_renamed(name, rest): value for name, value in state.items()}
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    padding = torch.from_numpy(~MASK[:, 0, 0])
    (x,) = draw((2, 4, 6))
    check_parameters(layer, Tensor(x), MASK)
    check_differences(lambda x: layer(x, MASK), [x])
    check_torch(lambda x: layer(x, MASK), lambda x: theirs(x, src_key_padding_mask=padding), [x])
    theirs.zero_grad()
    gradients = {f"attention.{name}": part for name, part in _attention_gradients(theirs.self_attn).items()}
    parameters = dict(theirs.named_parameters())
    gradients |= {name: parameters[_renamed(name, rest)] for name in layer.parameters() if name not in gradients}
    check_torch_parameters(
        layer, [Tensor(x), MASK], theirs(torch.from_numpy(x), src_key_padding_mask=padding), gradients
    )


def _renamed(name: str, names: dict[str, str]) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{names[layer]}.{kind}"


def test_mse() -> None:
    x, y = draw((4, 3), (4, 3))
    check_differences(lambda x: losses.mse(x, y), [x])
    check_torch(lambda x: losses.mse(x, y), lambda x: F.mse_loss(x, torch.from_numpy(y)), [x])


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cross_entropy(scale: float) -> None:
    (x,), y = draw((5, 4)), np.array([0, 3, losses.IGNORE, 1, 1])
    if scale == 1.0:
        check_differences(lambda x: losses.cross_entropy(x, y), [x])
    check_torch(lambda x: losses.cross_entropy(x, y), lambda x: F.cross_entropy(x, torch.from_numpy(y)), [x * scale])


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    layer, x = Dropout(0.25, rng(1)), Tensor(np.ones((200, 200)))
    y = layer(x)
    assert abs((y.data == 0).mean() - 0.25) < 0.01 and abs(y.data.mean() - 1) < 0.01
    y.sum().backward()
    assert x.grad is not None and np.array_equal(x.grad, y.data)  # the same places, the same factor
    layer.train(False)
    assert layer(x) is x


def test_dropout_by_differences_and_torch() -> None:
    kept = torch.from_numpy(rng(7).random((4, 5)) >= 0.4)
    check_differences(lambda x: Dropout(0.4, rng(7))(x), draw((4, 5)))
    check_torch(lambda x: Dropout(0.4, rng(7))(x), lambda x: torch.where(kept, x / 0.6, 0.0), draw((4, 5)))


def test_a_file_fits_a_page() -> None:
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in (ROOT / "src/danlu/scratch").glob("*.py")}
    assert len(lines) > 15 and max(lines.values()) <= 150, lines
