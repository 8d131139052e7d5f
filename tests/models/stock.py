"""The stock models of transformers as oracles: every tensor random, everything in float64."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

VOCAB = 97
LAST = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "qa_outputs.weight",
    "dense_prediction.weight",
    "score.weight",
)
TOLERANCE = 1e-8


@torch.no_grad()
def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64: norm weights 0.5-1.5, biases std 0.5, matrices so that activations and logits stay near std 1-3.

    Sinusoids stay what they are. T5's scores have no scale: they stay near 1, or softmax is only an argmax; its
    tied output is divided by sqrt(width).
    """
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    sinusoid = getattr(getattr(module, "config", None), "model_type", "") == "marian"
    for name, p in (*module.named_parameters(), *module.named_buffers()):
        fixed = not p.requires_grad and name not in ("final_logits_bias", "model.encoder.embed_positions.weight")
        if not p.is_floating_point() or fixed or (sinusoid and "embed_positions" in name):
            continue
        if p.ndim == 1 and name.endswith("weight"):
            p.copy_(torch.rand(p.shape, generator=generator) + 0.5)
        elif p.ndim <= 1:
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
        else:
            share = (
                0.2
                if name.endswith("Attention.q.weight")
                else 6.0
                if name == "shared.weight" or name.endswith(LAST)
                else 1.0
            )
            p.copy_(torch.randn(p.shape, generator=generator) * share * 1.5 / p.shape[-1] ** 0.5)
    return module


def lift(monkeypatch: pytest.MonkeyPatch, *families: str) -> None:
    """Let a stock family compute in float64 where its source says torch.float32 (norms), so that 1e-8 can be asked."""
    for family in families:
        folder = family.removesuffix("_text")
        module = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
        wide = ModuleType("torch")
        wide.__dict__.update(torch.__dict__, float32=torch.float64)
        monkeypatch.setattr(module, "torch", wide)
        if folder == "gemma3":  # casts by a method
            monkeypatch.setattr(module.Gemma3RMSNorm, "forward", lambda norm, x: norm._norm(x) * (1.0 + norm.weight))


def ids(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def padding(side: str, rows: int, length: int) -> Tensor:
    """(B, T) 1 = token, 0 = pad; every row of another length."""
    lengths = torch.tensor([length - 5 * row for row in range(rows)])[:, None]
    places = torch.arange(length)
    return ((places < lengths) if side == "right" else (places >= length - lengths)).long()


def stock_positions(mask: Tensor) -> Tensor:
    """The positions that transformers' generate gives a padded batch."""
    return (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def logits(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
    out = call(*args, **kwargs)
    return out if isinstance(out, Tensor) else out.logits
