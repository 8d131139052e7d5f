"""Activation checkpointing (1604.06174): keep only what goes into a block, and compute its inside again in backward."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(block: Callable[..., Tensor], generator: torch.Generator | None, *inputs: object) -> Tensor:
    """block(*inputs), of which only `inputs` are kept; dropout draws from `generator` what it drew the first time."""
    result: Tensor = checkpoint(
        block, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: _replay(generator)
    )
    return result


def _replay(generator: torch.Generator | None) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first computation of a block, and the second."""
    start = None if generator is None else generator.get_state()
    return contextlib.nullcontext(), _from(generator, start)


@contextlib.contextmanager
def _from(generator: torch.Generator | None, start: Tensor | None) -> Iterator[None]:
    """Let `generator` begin at `start` for a while, and then go on from where it was."""
    if generator is None or start is None:
        yield
        return
    now = generator.get_state()
    generator.set_state(start)
    try:
        yield
    finally:
        generator.set_state(now)
