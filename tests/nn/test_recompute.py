"""What is computed again in backward is what was computed before, to the last bit; less is kept meanwhile."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from danlu.nn import recompute
from danlu.nn.network import Network
from tests.train.tiny import CONTEXT, VOCAB, network, training
from tests.train.tiny import loaders as tiny_loaders

Weights = dict[str, Tensor]


def gradients(net: Network, checkpointing: str, form: str = "sdpa") -> tuple[Weights, int]:
    """The gradient of a fixed loss with dropout, and the bytes that backward found kept."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    net.zero_grad(set_to_none=True)
    net.core.checkpointing, net.core.attention_form = checkpointing, form
    assert net.core.dropout.generator is not None
    net.core.dropout.generator.manual_seed(5)
    ids = torch.arange(4 * CONTEXT).view(4, CONTEXT) * 7 % VOCAB
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = net({"input_ids": ids, "segment_ids": ids // 20 + 1}).float().square().sum()
    loss.backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}, kept


def same(a: Weights, b: Weights) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("form", ["sdpa", "written"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_the_same_bits(form: str, dtype: torch.dtype, dropout: float) -> None:
    net = network(dropout).to(dtype)
    plain, kept = gradients(net, "none", form)
    again, less = gradients(net, "blocks", form)
    assert len(plain) == len(list(net.parameters()))
    assert same(plain, again)
    assert less < kept / 2


def test_dropout_that_is_not_drawn_again_as_before_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = gradients(network(0.3), "none")
    monkeypatch.setattr(recompute, "_replay", lambda generator: (nullcontext(), nullcontext()))
    assert not same(plain, gradients(network(0.3), "blocks")[0])


def test_a_training_ends_in_the_same_weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    loader = tiny_loaders(tmp_path_factory.mktemp("data"))[0]
    ends = []
    for checkpointing in ("none", "blocks"):
        made = training(net=network(0.1), checkpointing=checkpointing)
        made.net.core.checkpointing = checkpointing
        list(made.events(loader, None))
        ends.append(made.final_weights())
    assert same(*ends)


def test_evaluation_keeps_nothing_to_compute_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(0.3)
    net.core.checkpointing = "blocks"
    monkeypatch.setattr("danlu.nn.transformer.recomputed", lambda *_: pytest.fail("recomputed without need"))
    with torch.no_grad():
        net({"input_ids": torch.zeros(1, CONTEXT, dtype=torch.int64)})
