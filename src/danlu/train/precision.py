"""Compute in bf16, learn in fp32: the optimizer owns fp32 masters, the network holds their bf16 copies.

fp8 is bf16 in which the linear layers of the blocks multiply in 8 bits (nn/fp8.py).
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from danlu.errors import UserError
from danlu.nn import fp8
from danlu.nn.embed import Table
from danlu.nn.heads import Vocabulary

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}
_PIECE = 2**20  # numbers of a gradient that are widened at once


def check(net: nn.Module, precision: str) -> None:
    """Raise UserError E137 where a matrix of the blocks cannot be multiplied in the precision."""
    for name, layer in fp8.layers(net) if precision == "fp8" else ():
        shape = tuple(layer.weight.shape)  # type: ignore[arg-type]
        if any(side % fp8.SIDE for side in shape):
            raise UserError("E137", name=name, shape=" x ".join(map(str, shape)), side=fp8.SIDE)


class Masters:
    """The trainable parameters in fp32, by name; matrices are computed with in `dtype`; norms, and a table of
    tokens that no head multiplies with, stay fp32.

    Gradients of micro-batches are added in fp32, so that a split step is the whole step up to rounding.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype):
        self.working = {name: p for name, p in net.named_parameters() if p.requires_grad}
        exact = {name: p.detach() for name, p in net.named_parameters()}
        if dtype != torch.float32:
            _lower(net, dtype)
        self.params: dict[str, Tensor] = {name: exact[name] for name in self.working}
        self.frozen = {name: tensor for name, tensor in exact.items() if name not in self.working}
        self._lowered = [name for name, p in self.working.items() if p.dtype != torch.float32]
        self.gradients: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Inside, each gradient of the network is added to ours as soon as it is there, and let go."""
        awake = [(name, p) for name, p in self.working.items() if p.requires_grad]
        hooks = [p.register_post_accumulate_grad_hook(partial(self._collect, name)) for name, p in awake]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _collect(self, name: str, p: Tensor) -> None:
        assert p.grad is not None
        if name in self.gradients:
            total, added = torch.atleast_1d(self.gradients[name]), torch.atleast_1d(p.grad)
            rows = max(1, _PIECE * len(added) // max(added.numel(), 1))
            for part, more in zip(total.split(rows), added.split(rows), strict=True):
                part.add_(more)  # which is widened in a tensor of its own
        else:
            self.gradients[name] = p.grad.to(self.params[name].dtype)
        p.grad = None

    def wake(self, names: Collection[str]) -> None:
        """Ask for the gradients of these alone: what sleeps costs no backward pass."""
        for name, p in self.working.items():
            p.requires_grad_(name in names)

    def clear(self) -> None:
        self.gradients = {}

    def publish(self) -> None:
        """Copy the masters into the network."""
        if self._lowered:
            torch._foreach_copy_([self.working[n].data for n in self._lowered], [self.params[n] for n in self._lowered])

    def restored(self, net: nn.Module) -> dict[str, Tensor]:
        """The network's complete state with the masters in place of their copies."""
        exact = self.frozen | self.params
        return {name: exact.get(name, tensor).detach() for name, tensor in net.state_dict().items()}


def _lower(net: nn.Module, dtype: torch.dtype) -> None:
    """Hold matrices in `dtype`; a table that no head multiplies with gives vectors in it."""
    multiplied = {part.weight for part in net.modules() if isinstance(part, Vocabulary)}
    tables = [part for part in net.modules() if isinstance(part, Table) and part.weight not in multiplied]
    for table in tables:
        table.lower(dtype)
    exact = {table.weight for table in tables}
    for p in net.parameters():
        if p.ndim >= 2 and p not in exact:
            p.data = p.data.to(dtype)


class Late(Masters, ABC):
    """Masters whose gradients are only complete after a backward pass: what passes between ranks comes at its end."""

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        yield
        self.collect()

    @abstractmethod
    def collect(self) -> None:
        """Add the network's gradients to ours and clear them."""
