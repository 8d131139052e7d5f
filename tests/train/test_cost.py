"""What a step costs, beside what torch counts while it is made."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from danlu import models
from danlu.models.architecture import build
from danlu.train.plan import step_gflop
from tests.train.tiny import PLAN

VOCAB, CONTEXT = 2000, 16
PARTS = {"all": "", "the last block": "core.blocks.2.", "the head": "head."}  # names of what learns begin so


@pytest.mark.parametrize("learns", PARTS)
@pytest.mark.parametrize("family", ["qwen3", "bert"])
def test_a_step_costs_what_torch_counts(family: str, learns: str) -> None:
    """Tables that are looked up, and backward passes that end before what is frozen, are not among it."""
    made = models.preset(family, VOCAB, CONTEXT, 3, width=64)
    made = made if family == "qwen3" and learns != "the head" else replace(made, head=models.label_head(made, 2))
    net = build(made, torch.Generator().manual_seed(1)).train()
    for name, weight in net.named_parameters():
        weight.requires_grad_(name.startswith(PARTS[learns]))
    plan = replace(PLAN, rows=4, accumulate=1, context=CONTEXT)
    ids = torch.randint(VOCAB, (plan.rows, CONTEXT), generator=torch.Generator().manual_seed(2))
    batch = {"input_ids": ids, "segment_ids": ids * 0 + 1, "position_ids": torch.arange(CONTEXT).expand_as(ids)}
    with FlopCounterMode(display=False) as counter:
        net(batch | {"type_ids": ids * 0}).float().sum().backward()
    assert step_gflop(net, plan) == pytest.approx(counter.get_total_flops() / 1e9, rel=0.15)
