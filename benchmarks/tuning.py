"""What each way of tuning trains and holds, in MB: weights, what a step keeps for backward, gradients, optimizer.

    python benchmarks/tuning.py        prints a table in Markdown

The network has the form and sizes of a MiniLM (BERT, 6 layers of 384, 30,522 tokens) with a head of two labels; a step
reads 16 texts of 64 tokens, in fp32, for AdamW. Counted are bytes of tensors, so that no other process can disturb the
figures. How well a way learns depends on base and data, and is not measured here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from danlu import adapt, models
from danlu.models.architecture import build
from danlu.train import memory

WAYS = ("full", "last-2", "head", "lora", "dora", "qlora", "prefix", "adapter", "bitfit")
VOCAB, ROWS, LENGTH = 30_522, 16, 64


def measured(way: str) -> tuple[int, float, float, float, float]:
    """Weights that are trained, and MB held: by weights, for backward, by gradients, by the optimizer."""
    shape = models.preset("bert", VOCAB, 512, 6, width=384, heads=12)
    net = build(replace(shape, head=models.label_head(shape, 2)), torch.Generator().manual_seed(1)).train()
    net = adapt.apply(net, adapt.short(way), 1)
    trained, _ = memory.counted(net)
    ids = torch.randint(VOCAB, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2))
    kept = _kept(net, lambda: net({"input_ids": ids}).square().sum())
    weights = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    return trained, weights / 1e6, kept / 1e6, trained * 4 / 1e6, trained * 8 / 1e6


def _kept(net: nn.Module, work: Callable[[], Any]) -> int:
    """Bytes of all that autograd keeps of some work, without the network's own tensors; each storage once."""
    own, seen = {t.untyped_storage().data_ptr() for t in net.state_dict().values()}, dict[int, Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            seen[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    assert result.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


def main() -> None:
    print("| `tune` | trained | share | weights, MB | for backward | gradients | optimizer | in all |")
    print("|---|" + "--:|" * 7)
    total = 0
    for way in WAYS:
        trained, *held = measured(way)
        total = total or trained  # the first trains all
        figures = " | ".join(f"{each:,.0f}" for each in (*held, sum(held)))
        print(f"| `{way}` | {trained:,} | {trained / total:.1%} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
