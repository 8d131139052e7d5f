"""What this machine can do, and what a network costs on it: measured once, remembered per machine."""

import contextlib
import json
import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from danlu import files
from danlu.errors import UserError
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


def _key(name: str) -> str:
    return f"{_machine()}|torch {torch.__version__}|{torch.get_num_threads()} threads|{name}"


def _machine() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


@cache
def peak(precision: str) -> float:
    """Floating-point operations per second of a matrix product in `precision`: the limit we compare with.

    Measured once a process, and the best that this machine ever showed is kept: a busy moment never lowers it.
    """
    name = f"peak {precision}"
    known, key = _known(), _key(name)
    rate = _matmul_rate(DTYPES[precision])
    if rate > float(known.get(key, 0.0)):
        _keep(known | {key: rate})
    return max(rate, float(known.get(key, 0.0)))


def _matmul_rate(dtype: torch.dtype, size: int = 1536) -> float:
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def faster_precision() -> str:
    """bf16 where its matrix products gain at least half over fp32's (AMX, AVX512-bf16, GPUs), else fp32."""
    return "bf16" if peak("bf16") > 1.5 * peak("fp32") else "fp32"


def flops_per_token(matrix_weights: int, layers: int, width: int, context: int) -> float:
    """Forward and backward operations per trained token: 6 per weight, and causal attention's 6 * T * D a layer.

    Source: Kaplan et al. 2020 (arXiv:2001.08361), table 1, with half of T attended on average.
    """
    return 6.0 * matrix_weights + 6.0 * layers * width * context
