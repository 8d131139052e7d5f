"""Optimizers: SGD, RMSprop, Adam, AdamW and Muon, each a few foreach lines over fp32 tensors.

They are ours because constructing torch.optim's imports the compiler stack (3 s of start-up) and because the state must
be plain named tensors that a checkpoint can hold. torch.optim is their oracle in the tests.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu.config import Train
from danlu.device import CPU

Named = dict[str, Tensor]
_EPS = 1e-8
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of Muon's iteration
_WIDE = 4  # times as many columns as rows, from which Muon's iteration is done on the rows' products


class Optimizer(ABC):
    """Updates named parameters in place; `state` maps "slot/name" to a tensor.

    `dtype` is what the training computes products in; the state is as exact as the parameters. `block` is Muon's.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, params: Named, train: Train, decay: float, dtype: torch.dtype = torch.float32, block: int = 0):
        self.params, self.train, self.decay, self.dtype, self.block = params, train, decay, dtype, block
        self.step_count = 0
        self.state: Named = {f"{slot}/{name}": torch.zeros_like(p) for slot in self.slots for name, p in params.items()}
        self._weights = list(params.values())
        self._matrices = [p for p in self._weights if p.ndim >= 2]
        self._slots = {slot: [self.state[f"{slot}/{name}"] for name in params] for slot in self.slots}

    @property
    def names(self) -> list[str]:
        """The parameters that this optimizer updates."""
        return list(self.params)

    def restore(self, state: Named) -> None:
        """Copy a saved state into ours."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    def slot(self, slot: str) -> list[Tensor]:
        return self._slots[slot]

    def step(self, gradients: Named, lr: float) -> None:
        """One update from the gradients (same names, fp32)."""
        self.step_count += 1
        if self.params:
            self.update(self._weights, [gradients[name] for name in self.params], lr)

    @abstractmethod
    def update(self, weights: list[Tensor], gradients: list[Tensor], lr: float) -> None: ...

    def shrink(self, lr: float) -> None:
        """Decoupled weight decay of the matrices (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
        if self.decay and self._matrices:
            torch._foreach_mul_(self._matrices, 1 - lr * self.decay)


class SGD(Optimizer):
    """v = momentum v + g; w -= lr v."""

    slots = ("velocity",)

    def update(self, weights: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        velocity = self.slot("velocity")
        self.shrink(lr)
        torch._foreach_mul_(velocity, self.train.momentum)
        torch._foreach_add_(velocity, gradients)
        torch._foreach_add_(weights, velocity, alpha=-lr)


class RMSprop(Optimizer):
    """s = 0.99 s + 0.01 g^2; w -= lr g / sqrt(s) (Tieleman & Hinton 2012)."""

    slots = ("square",)

    def update(self, weights: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        square = self.slot("square")
        self.shrink(lr)
        torch._foreach_mul_(square, 0.99)
        torch._foreach_addcmul_(square, gradients, gradients, 0.01)
        scale = torch._foreach_sqrt(square)
        torch._foreach_add_(scale, _EPS)
        torch._foreach_addcdiv_(weights, gradients, scale, -lr)


class AdamW(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled weight decay."""

    slots = ("mean", "square")

    def update(self, weights: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        self.shrink(lr)
        count = torch.full((), float(self.step_count), device=weights[0].device)  # made there, not sent
        torch._fused_adamw_(  # one pass over the memory of all; decay, which spares vectors, is ours
            weights, gradients, self.slot("mean"), self.slot("square"), [], [count] * len(weights), lr=lr,
            beta1=self.train.beta1, beta2=self.train.beta2, weight_decay=0.0, eps=_EPS, amsgrad=False, maximize=False,
        )  # fmt: skip


class Adam(AdamW):
    """Adam without decay."""

    def shrink(self, lr: float) -> None:
        return


class Muon(Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024), for the matrices inside the blocks.

    The filters of a convolution are the rows of one matrix. Everything else (embeddings, head, norms) goes to an AdamW
    of its own at the same schedule. With `block`, at most so many rows (columns, where a matrix has more rows than
    columns) are orthogonalised together, each block for itself (MuonBP, 2510.16981).
    """

    slots = ("velocity",)
    momentum = 0.95
    rest_lr = 0.3  # share of the rate for the rest

    def __init__(self, params: Named, train: Train, decay: float, dtype: torch.dtype = torch.float32, block: int = 0):
        inner = self.inner(params)
        super().__init__(inner, train, decay, dtype, block)
        self.rest = AdamW({name: p for name, p in params.items() if name not in inner}, train, decay)
        self.shapes = [p.flatten(1).shape for p in inner.values()]
        self.state |= self.rest.state

    @staticmethod
    def inner(params: Named) -> Named:
        """Those whose momentum is orthogonalised."""
        return {name: p for name, p in params.items() if p.ndim >= 2 and "blocks." in name}

    @property
    def names(self) -> list[str]:
        return [*self.params, *self.rest.params]

    def step(self, gradients: Named, lr: float) -> None:
        super().step(gradients, lr)
        self.rest.step_count = self.step_count - 1
        self.rest.step(gradients, lr * self.rest_lr)

    def update(self, weights: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        velocity = self.slot("velocity")
        self.shrink(lr)
        torch._foreach_lerp_(velocity, gradients, 1 - self.momentum)
        looked_ahead = torch._foreach_lerp(gradients, velocity, self.momentum)
        for shape in dict.fromkeys(self.shapes):  # matrices of one shape are orthogonalised as one batch
            members = [i for i, each in enumerate(self.shapes) if each == shape]
            updates = self.directions([looked_ahead[i].flatten(1) for i in members], shape)
            scale, chosen = max(1.0, shape[0] / shape[1]) ** 0.5, [weights[i] for i in members]
            updates = [update.reshape(p.shape) for update, p in zip(updates, chosen, strict=True)]
            torch._foreach_add_(chosen, updates, alpha=-lr * scale)

    def directions(self, matrices: list[Tensor], shape: torch.Size) -> list[Tensor]:
        """Matrices of one shape, orthogonalised in bf16 where the training computes in it, else as they are."""
        lowered = torch.bfloat16 if self.dtype == torch.bfloat16 else matrices[0].dtype
        batch = torch.stack([matrix.to(lowered) for matrix in matrices])
        return list(in_blocks(batch, self.block).to(matrices[0].dtype).unbind(0))


def in_blocks(matrices: Tensor, block: int) -> Tensor:
    """(N, R, C) -> the same, at most `block` rows orthogonalised together, or columns of a tall matrix; 0: all."""
    if matrices.size(-2) > matrices.size(-1):
        return in_blocks(matrices.mT, block).mT
    rows = matrices.size(-2)
    count, each = _cut(rows, block)
    short = count * each - rows
    even = F.pad(matrices, (0, 0, 0, short)) if short else matrices  # a row of zeros stays one, and changes no other
    found = orthogonalised(even.unflatten(-2, (count, each)).flatten(0, 1))
    return found.unflatten(0, (-1, count)).flatten(1, 2)[:, :rows]


def _cut(rows: int, block: int) -> tuple[int, int]:
    """Blocks of about equal size, and rows of each."""
    count = math.ceil(rows / block) if block else 1
    return count, math.ceil(rows / count)


def orthogonalised(matrices: Tensor, rounds: int = 5) -> Tensor:
    """(N, R, C) with R <= C -> the nearest matrices of orthogonal rows, roughly: a quintic Newton-Schulz iteration.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; singular values end in about [0.7, 1.2].
    """
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.device.type == CPU and x.size(-1) >= _WIDE * x.size(-2):  # on a GPU products in fp32 are too slow for it
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (_factor(wide @ wide.mT, rounds) @ wide).to(x.dtype)
    a, b, c = _QUINTIC
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _factor(gram: Tensor, rounds: int) -> Tensor:
    """The A = x xT (N, R, R) -> what x is multiplied by in that iteration, in the same shape.

    p(A) = a + b A + c A^2; x <- p(A) x, so A <- p(A) A p(A): two products with the long side, not two in each round. In
    fp32 at least: what rounding makes of an eigenvalue of 0 grows by a^2 in each round but the last, from 1e-7 to .002.
    """
    a, b, c = _QUINTIC
    factor = torch.empty(0)
    for number in range(rounds):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        factor = step @ factor if number else step
        if number + 1 < rounds:
            gram = step @ gram @ step
    return factor


def orthogonalising(params: Named, block: int = 0, rounds: int = 5) -> float:
    """Operations of `in_blocks` in one step of Muon as the iteration is written, on whatever device."""
    total = 0.0
    for p in Muon.inner(params).values():
        short, long = sorted(p.flatten(1).shape)
        count, each = _cut(short, block)
        total += count * rounds * (4.0 * each**2 * long + 2.0 * each**3)
    return total


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW, "muon": Muon}


def clip(gradients: Iterable[Tensor], limit: float) -> float:
    """Scale the gradients in place to a joint norm of at most `limit` (0: no limit); return the norm before."""
    tensors = list(gradients)
    norm = float(torch.stack(torch._foreach_norm(tensors)).norm())
    if limit and norm > limit:
        torch._foreach_mul_(tensors, limit / norm)
    return norm


def penalise(gradients: Named, weights: Named, l1: float, l2: float) -> None:
    """Add the gradients of l1 * |w| and l2 * w^2 / 2 of the matrices."""
    for name, gradient in gradients.items():
        if (weight := weights[name]).ndim >= 2 and (l1 or l2):
            gradient.add_(weight.sign(), alpha=l1).add_(weight, alpha=l2)
