"""Flex attention against the written form: what its blocks of pairs allow is what the mask allows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import flex_attention as stock

from danlu.config import Train
from danlu.errors import UserError
from danlu.models import preset
from danlu.models.architecture import build
from danlu.nn.flex import blocks
from danlu.train import compiling
from danlu.train.plan import Request

ROWS, CONTEXT = 3, 200  # more than one block of 128


def network(form: str, family: str, **choices: int) -> nn.Module:
    net = build(preset(family, 50, CONTEXT, 2, width=32, heads=2, **choices), torch.Generator().manual_seed(0)).double()
    net.core.attention_form = form
    return net


def batch(*, packed: bool) -> dict[str, Tensor]:
    """Rows of several documents and padding, or of one."""
    random = torch.Generator().manual_seed(1)
    segments = torch.ones(ROWS, CONTEXT, dtype=torch.int64)
    if packed:
        ends = torch.tensor([[40, 130, 190], [1, 2, 199], [150, 160, 200]])
        segments = 1 + (torch.arange(CONTEXT)[None, :, None] >= ends[:, None]).sum(-1)
        segments[segments == 4] = 0
    ids = torch.randint(50, (ROWS, CONTEXT), generator=random)
    return {"input_ids": ids, "segment_ids": segments}


@pytest.mark.parametrize(("family", "choices"), [("qwen3", {"kv_heads": 1}), ("gpt2", {}), ("bert", {})])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.filterwarnings("ignore")  # of torch, which looks at the call in its own ways
def test_it_is_the_written_form(
    family: str, choices: dict[str, int], packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients in float64. On a processor torch refuses gradients of it; the oracle computes them."""
    monkeypatch.setattr(stock, "_validate_device", lambda *_: None)
    found = {}
    for form in ("written", "flex"):
        net = network(form, family, **choices)
        states = net.hidden(batch(packed=packed))
        states.square().sum().backward()
        found[form] = [states, *(p.grad for p in net.parameters() if p.grad is not None)]
    assert len(found["flex"]) == len(found["written"]) > 10
    for ours, exact in zip(found["flex"], found["written"], strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-11)


def test_what_nobody_sees_is_not_computed() -> None:
    """Two documents of 256 tokens, causal: of 4 x 4 blocks of 128 only 2 x 3 hold a pair that is allowed."""
    places, segments = torch.arange(512), torch.arange(512) // 256
    allowed = (places[:, None] >= places) & (segments[:, None] == segments)
    assert blocks(allowed[None, None]).sparsity() == pytest.approx(100 * (1 - 6 / 16))


def test_without_a_gpu_it_is_refused() -> None:
    with pytest.raises(UserError) as error:
        compiling.check(Request(None, Train(attention="flex"), None, None, "random", 0.0))  # type: ignore[arg-type]
    assert error.value.code == "E149"
