"""Tensor parallel training: each rank holds some heads of every attention and some columns of every MLP.

The plan stands here, beside the model: no layer knows of it (Shoeybi et al. 2019, arXiv:1909.08053). Products into the
heads and the hidden columns are split by their outputs, products back by their inputs, so that a block passes two sums
forward and two backward. Embedding, norms and head are the same on every rank, and so is the batch.
"""

from collections.abc import Collection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from danlu.adapt.graft import Grown
from danlu.data.loader import WHOLE
from danlu.errors import UserError
from danlu.nn.attention import Attention
from danlu.nn.config import TransformerConfig
from danlu.nn.linear import Linear
from danlu.tasks.task import Batch, Task
from danlu.train.checkpoint import Named
from danlu.train.precision import Late, Masters
from danlu.train.sharding import Sharded, local

TAKES = {"attention.inner": 4, "mlp.inner": 1}  # what a block gives to its parts, x first
SPLIT: dict[str, type[Any]] = {  # of every block: what is split by its outputs, and by its inputs
    "attention.inner.q": ColwiseParallel, "attention.inner.k": ColwiseParallel, "attention.inner.v": ColwiseParallel,
    "attention.inner.o": RowwiseParallel,
    "mlp.inner.gate": ColwiseParallel, "mlp.inner.up": ColwiseParallel, "mlp.inner.down": RowwiseParallel,
}  # fmt: skip


class Split(Sharded):
    """The ranks of a tensor parallel training: all see the whole batch, so that losses and counts need no sum."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.share = self.mine = WHOLE
        self.ids = ()  # what is dropped outside the heads must be the same on all ranks

    def masters(self, net: nn.Module, dtype: torch.dtype) -> Masters:
        exact = {name: p.detach() for name, p in net.named_parameters()}
        for p in net.parameters():
            if dtype != torch.float32 and p.ndim >= 2:
                p.data = p.data.to(dtype)
        split(net, self.mesh)
        self.note(net)
        return Parts(net, self._own(exact))

    def own(self, batch: Batch) -> Batch:
        return batch

    def total(self, values: dict[str, float]) -> dict[str, float]:
        return values


class Parts(Late):
    """This rank's part of the weights in fp32, and of their copies to compute with."""

    def __init__(self, net: nn.Module, exact: Named):
        named = dict(net.named_parameters())
        self.working = {name: p for name, p in named.items() if p.requires_grad}
        self._lowered = [name for name, p in self.working.items() if p.dtype != exact[name].dtype]
        mine = {name: exact[name].clone() if p.dtype != exact[name].dtype else local(p.detach())
                for name, p in named.items()}  # fmt: skip
        self.params = {name: mine[name] for name in self.working}
        self.frozen = {name: tensor for name, tensor in mine.items() if name not in self.working}
        self.gradients: dict[str, Tensor] = {}

    def wake(self, names: Collection[str]) -> None:
        """All learn: what passes between the ranks is fixed. The gradients of what sleeps are let lie."""

    def collect(self) -> None:
        for name, p in self.working.items():
            if p.grad is not None:
                gradient = local(p.grad).to(self.params[name].dtype)
                self.gradients[name] = self.gradients[name].add_(gradient) if name in self.gradients else gradient
                p.grad = None

    def publish(self) -> None:
        for name in self._lowered:
            local(self.working[name].detach()).copy_(self.params[name])

    def restored(self, net: nn.Module) -> dict[str, Tensor]:
        exact = self.frozen | self.params
        return {name: exact.get(name, local(tensor)).detach() for name, tensor in net.state_dict().items()}


def split(net: nn.Module, mesh: DeviceMesh) -> None:
    """Split the core of a network over the ranks of `mesh`.

    Raises:
        UserError: E125, its heads or its hidden columns cannot be shared equally; E126, there are adapters in them.
    """
    core: Any = net.core
    count = mesh.size()
    check(core.config, count)
    for block in core.blocks:
        parts = dict(block.named_modules())
        if any(type(part) is not Linear for name, part in parts.items() if name in SPLIT) or _adapted(block):
            raise UserError("E126", key="finetune.adapt")
        styles: dict[str, ParallelStyle] = {name: style() for name, style in SPLIT.items() if name in parts}
        parallelize_module(block, mesh, styles | {name: _once(count) for name, count in TAKES.items()})
        for module in block.modules():
            if isinstance(module, Attention):
                module.heads, module.kv_heads = module.heads // count, module.kv_heads // count
                _sum_gradients(module, mesh)


def _once(takes: int) -> PrepareModuleInput:
    """Let the products of a part share one x, whose gradients are then summed as one: two or three sums fewer."""
    layouts = (Replicate(), *[None] * (takes - 1))
    return PrepareModuleInput(input_layouts=layouts, desired_input_layouts=layouts)


def _adapted(block: nn.Module) -> bool:
    return any(isinstance(part, Grown) for part in block.modules())


def check(config: TransformerConfig, count: int) -> None:
    """Raise UserError E125 unless the heads and hidden columns of a stack can be shared equally by `count` ranks."""
    for name in ("heads", "kv_heads", "hidden"):
        if (size := getattr(config, name)) % count:
            raise UserError("E125", name=f"model.{name}", size=size, ranks=count)


def _sum_gradients(attention: Attention, mesh: DeviceMesh) -> None:
    """The norms of the heads are the same on all ranks, but each sees the gradients of its own heads only."""

    def summed(gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, group=mesh.get_group())
        return gradient

    for norm in (attention.q_norm, attention.k_norm):
        for weight in norm.parameters() if norm is not None else ():
            if weight.requires_grad:
                weight.register_hook(summed)
