"""Training on several ranks: all that passes between them, and when.

The rule is the loop's: the gradient of sum_k total_k / count_k, totals and counts summed over micro-batches AND ranks.
Each rank takes its share of the rows of every micro-batch, divides its sums by the counts of all, and the gradients
are then summed. So the batch of a step, and the order of rows, are the same for any number of ranks.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from danlu import ranks
from danlu.data.loader import WHOLE, Share
from danlu.errors import UserError
from danlu.tasks.task import Batch, Task
from danlu.train import checkpoint, optim
from danlu.train.checkpoint import Checkpoint, Named
from danlu.train.precision import Masters

_BUCKET = 2**22  # values that are summed by one call: large enough for full bandwidth, small beside the gradients


class Alone:
    """One rank: nothing passes."""

    share = mine = WHOLE  # of the rows to train on, and of those that are held out
    ids: tuple[int, ...] = ()  # what sets the dropout of this rank apart

    def any(self, flag: bool) -> bool:
        """Whether one of the ranks says so."""
        return flag

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Values by name, summed over the ranks."""
        return values

    def reduce(self, gradients: Iterable[Tensor]) -> None:
        """Sum gradients over the ranks, in place."""

    def clip(self, gradients: Named, limit: float) -> float:
        """Scale summed gradients to a joint norm of at most `limit`; the norm before."""
        return optim.clip(gradients.values(), limit)

    def masters(self, net: nn.Module, dtype: torch.dtype) -> Masters:
        """What this rank holds of the weights, and learns in fp32."""
        return Masters(net, dtype)

    def optimizer(self, name: str) -> type[optim.Optimizer]:
        return optim.OPTIMIZERS[name]

    def whole(self, weights: Named) -> Named:
        """The whole weights, from what the ranks hold."""
        return weights

    def save(self, root: Path, state: Checkpoint, keep: frozenset[int]) -> None:
        """Write a checkpoint; all ranks call this."""
        if ranks.rank() == 0:
            checkpoint.save(root, state, keep=keep)

    def settle(self) -> None:
        """Wait until what was last saved is in place; all ranks call this. Raises what kept it from being written."""

    def read(self, root: Path, step: int) -> Checkpoint | None:
        """What this rank holds of the checkpoint of a step; None where it is gone or damaged."""
        return checkpoint.at(root, step)

    def own(self, batch: Batch) -> Batch:
        """This rank's rows of a batch that had to be made whole."""
        return batch

    def refuse(self, error: BaseException) -> None:
        """Raise where a step that ran out of memory on this rank cannot be begun again: the others wait inside it."""


class Replicas(Alone):
    """Every rank holds the whole network. What is summed is the same on all to the last bit, and so the weights are."""

    def __init__(self, task: Task) -> None:
        self.ids = (ranks.rank(),) if ranks.rank() else ()
        self.mine = Share(ranks.rank(), ranks.count())
        self.corrupts = type(task).corrupt is not Task.corrupt  # its draws must be those of all rows
        self.share = WHOLE if self.corrupts else self.mine

    def own(self, batch: Batch) -> Batch:
        return {name: t[self.mine.of(len(t))] for name, t in batch.items()} if self.corrupts else batch

    def any(self, flag: bool) -> bool:
        said = torch.tensor(float(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def total(self, values: dict[str, float]) -> dict[str, float]:
        sums = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64)
        dist.all_reduce(sums)
        return dict(zip(sorted(values), sums.tolist(), strict=True))

    def reduce(self, gradients: Iterable[Tensor]) -> None:
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(parts, bucket, strict=True)])

    def refuse(self, error: BaseException) -> None:
        raise UserError("E404", rank=ranks.rank(), ranks=ranks.count()) from error


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in their order, as many together as stay below _BUCKET values."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def joined(task: Task) -> Alone:
    """This process as a rank of its run, connected with the others."""
    if ranks.count() == 1:
        return Alone()
    ranks.join()
    return Replicas(task)


def strategy(together: Alone, task: Task, parallel: str) -> Alone:
    """How the ranks share the weights, as the plan says."""
    if ranks.count() == 1 or parallel == "ddp":
        return together
    from danlu.train.sharding import Sharded
    from danlu.train.tensor import Split

    return Sharded(task) if parallel == "fsdp" else Split(task)
