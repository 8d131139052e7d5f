"""Small networks to be tuned: one that speaks and one that labels, of each kind of form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from danlu import adapt, models
from danlu.models.architecture import Architecture, build
from danlu.nn.network import Network

VOCAB, CONTEXT = 90, 64
METHODS = ("full", "head", "last-1", "lora", "dora", "qlora", "prefix", "adapter", "bitfit")
FORMS = ("gpt", "gpt labels", "gpt2", "bert", "bert labels")


def architecture(form: str, **options: Any) -> Architecture:
    family, _, labels = form.partition(" ")
    sizes = {"width": 64, "heads": 4} | ({"kv_heads": 2} if family == "gpt" else {}) | options
    made = models.family(family).preset(VOCAB, CONTEXT, 2, **sizes)
    return replace(made, head=models.label_head(made, 3)) if labels else made


def network(form: str, seed: int = 1, **options: Any) -> Network:
    """With larger first weights than usual, so that logits differ where anything does."""
    made = build(architecture(form, **options), torch.Generator().manual_seed(seed))
    for name, p in made.named_parameters():
        p.data = p.data * 2 if p.ndim > 1 else p.data + 0.3 * torch.randn(p.shape, generator=_seeded(name))
    return made.eval()


def tuned(form: str, tune: str, seed: int = 3, **options: Any) -> Network:
    """A network under a method, and something in all that is trained."""
    net, generator = adapt.apply(network(form, **options), adapt.short(tune), seed), torch.Generator().manual_seed(seed)
    for p in net.parameters():
        if p.requires_grad:
            p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return net


def batch(rows: int = 2, length: int = 20) -> dict[str, Tensor]:
    """Two rows, of which the second ends earlier."""
    ids = torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))
    segments = torch.ones_like(ids)
    segments[1:, length - 5 :] = 0
    return {"input_ids": ids, "segment_ids": segments}


@torch.no_grad()
def logits(net: Network, **changed: Tensor) -> Tensor:
    """Of what is no padding."""
    asked = batch() | changed
    made = net(asked)
    return made[asked["segment_ids"] > 0] if made.ndim == 3 else made


def trained(net: Network) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


def _seeded(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, name)))
