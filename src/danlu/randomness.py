"""The one source of randomness: counter-based streams keyed by (seed, purpose, ids); there is no global generator."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _number(seed: int, purpose: str, ids: tuple[int, ...]) -> int:
    text = f"{seed}/{purpose}/{'/'.join(map(str, ids))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def stream(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A NumPy generator for one purpose, equal on every machine."""
    return np.random.Generator(np.random.Philox(key=_number(seed, purpose, ids)))


def generator(seed: int, purpose: str, *ids: int) -> "torch.Generator":
    """A torch CPU generator for one purpose."""
    import torch

    return torch.Generator().manual_seed(_number(seed, purpose, ids) & (2**63 - 1))
