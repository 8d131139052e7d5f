"""Names, loading, casting, training and using."""

import numpy as np
import pytest

from danlu.scratch.encoder import EncoderLayer
from danlu.scratch.mlp import MLP
from danlu.scratch.tensor import Tensor
from tests.scratch.gradients import draw, rng


def test_parameters_are_named_by_where_they_stand() -> None:
    names = set(MLP((4, 3, 2), rng()).parameters())
    assert names == {"layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"}


def test_load_copies_and_refuses_what_does_not_fit() -> None:
    net, other = MLP((4, 3, 2), rng(1)), MLP((4, 3, 2), rng(2))
    net.load({name: p.data for name, p in other.parameters().items()})
    x = Tensor(*draw((5, 4)))
    assert np.array_equal(net(x).data, other(x).data)
    other.layers[0].weight.data += 1.0
    assert not np.array_equal(net(x).data, other(x).data)
    with pytest.raises(ValueError, match="one side only"):
        net.load({"layers.0.weight": np.ones((3, 4))})
    wrong = {name: np.ones(7) for name in net.parameters()}
    with pytest.raises(ValueError, match="there"):
        net.load(wrong)


def test_cast_changes_what_is_computed_in() -> None:
    net = MLP((4, 3, 2), rng())
    net.cast(np.float32)
    assert net(Tensor(np.ones((1, 4), dtype=np.float32))).data.dtype == np.float32


def test_dropout_inside_a_layer_is_switched_off_for_use() -> None:
    layer, x = EncoderLayer(6, 2, 8, rng(), dropout=0.5), Tensor(*draw((2, 3, 6)))
    assert not np.array_equal(layer(x).data, layer(x).data)
    layer.train(False)
    assert np.array_equal(layer(x).data, layer(x).data)


def test_a_layer_remembers_its_last_output_and_its_gradient() -> None:
    net = MLP((4, 3, 2), rng())
    net(Tensor(*draw((5, 4)))).sum().backward()
    hidden = net.layers[0].output
    assert hidden.shape == (5, 3) and hidden.grad is not None and hidden.grad.shape == (5, 3)
