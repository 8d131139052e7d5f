"""What this machine can do, and what a network costs on it: measured once, remembered per machine."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danlu import device, files
from danlu.errors import UserError
from danlu.nn.heads import Vocabulary
from danlu.train.precision import DTYPES


def cache_file() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "danlu" / "machine.json"


def _known() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(cache_file().read_bytes()))
    return {}


def _keep(known: dict[str, Any]) -> None:
    """Remember measurements; a cache that cannot be written is no error."""
    with contextlib.suppress(UserError, OSError):
        files.write_json(cache_file(), known)


def _key(name: str, where: str) -> str:
    return f"{device.name(where)}|torch {torch.__version__}|{torch.get_num_threads()} threads|{name}"


@cache
def peak(precision: str, where: str = device.CPU) -> float:
    """Floating-point operations per second of a matrix product in `precision` on a device: what we compare with.

    For fp8 it is that of bf16, in which all but the blocks' products are.

    Measured once a process, and the best that this machine ever showed is kept: a busy moment never lowers it.
    """
    name = f"peak {precision}"
    rate = _matmul_rate(DTYPES[precision], torch.device(where))
    best = float(recalled(name, where) or 0.0)
    return best if best >= rate else float(kept(name, where, rate))


def recalled(what: object, where: str) -> Any:
    """What was kept here of `what`; None where it is new."""
    return _known().get(_key(_named(what), where))


def kept(what: object, where: str, fact: Any) -> Any:
    """The fact, which is remembered of `what` on this machine in place of the one before."""
    _keep(_known() | {_key(_named(what), where): fact})
    return fact


def chosen(what: object, where: str, among: Sequence[str], choose: Callable[[], str]) -> str:
    """Which of these was the fastest here for `what` when it was first tried, or is now.

    Two that are about as fast would come out now so, now so: the same training would not give the same weights.
    """
    if len(among) == 1:
        return among[0]
    before = recalled(("fastest for", what), where)
    return str(before) if before in among else kept(("fastest for", what), where, choose())


def _named(what: object) -> str:
    """A short name of `what`: itself where it is one."""
    return what if isinstance(what, str) else hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _matmul_rate(dtype: torch.dtype, where: torch.device) -> float:
    size = 1536 if where.type == device.CPU else 8192  # a GPU does a small one before it is told of the next
    a, b = (torch.ones(size, size, dtype=dtype, device=where) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        device.wait(where)
        start = time.perf_counter()
        a @ b
        device.wait(where)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def faster_precision(where: str = device.CPU) -> str:
    """bf16 where its matrix products gain at least half over fp32's (AMX, AVX512-bf16, GPUs), else fp32."""
    return "bf16" if peak("bf16", where) > 1.5 * peak("fp32", where) else "fp32"


def flops_per_token(matrix_weights: float, layers: int, width: int, context: int) -> float:
    """Forward and backward operations per trained token: 6 per weight, and causal attention's 6 * T * D a layer.

    Source: Kaplan et al. 2020 (arXiv:2001.08361), table 1, with half of T attended on average.
    """
    return 6.0 * matrix_weights + 6.0 * layers * width * context


def products(net: nn.Module) -> dict[Tensor, float]:
    """The weights that multiply, each with how many they are worth that are multiplied with three times in a step.

    A third is for going forward, one for what learns before them, one for their own gradient. A table that is looked
    up costs nothing, but to the head over words that shares it.
    """
    found, before = dict[Tensor, float](), False
    for part in net.modules():
        own = list(part.parameters(recurse=False))
        used = [part.weight] if isinstance(part, Vocabulary) else [] if isinstance(part, nn.Embedding) else own
        found |= {p: p.numel() * (1 + before + p.requires_grad) / 3 for p in used if p.ndim >= 2}
        before = before or any(p.requires_grad for p in own)
    return found


def matrices(net: nn.Module) -> int:
    """Weights that multiply."""
    return sum(p.numel() for p in net.parameters() if p.ndim >= 2)
