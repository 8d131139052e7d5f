"""How a step's micro-batches become terms whose gradients add up to that of the step: one pass, or two.

Where samples see each other through one vector each, the loss of a whole step is made of all vectors, and no more than
one micro-batch's activations are ever held: vectors without a graph first, then the gradient of the loss for each
vector, then each micro-batch again, to carry its vectors' gradients into the network (Gao et al. 2021,
arXiv:2101.06983). The gradient is that of the whole, up to rounding, at the price of a second forward pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from danlu.tasks.task import Batch, Contrastive, Task

Counts = Mapping[str, float]  # what each term of the loss is divided by
Begin = Callable[[int], None]  # is told which micro-batch comes next


def passes(
    task: Task, net: nn.Module, batches: Sequence[Batch], counts: Counts, begin: Begin, part: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each micro-batch a scalar to call `backward` on, and what it adds to the loss of the step."""
    if isinstance(task, Contrastive) and len(batches) > 1:
        return _twice(task, net, batches, counts, begin)
    return _once(task, net, batches, counts, begin, part)


def _once(
    task: Task, net: nn.Module, batches: Sequence[Batch], counts: Counts, begin: Begin, part: str
) -> Iterator[tuple[Tensor, Tensor]]:
    for micro, batch in enumerate(batches):
        begin(micro)
        total = _divided(task.loss(net, batch, part), counts)
        yield total, total.detach()


def _twice(
    task: Contrastive, net: nn.Module, batches: Sequence[Batch], counts: Counts, begin: Begin
) -> Iterator[tuple[Tensor, Tensor]]:
    found = list[Tensor]()
    with torch.no_grad():
        for micro, batch in enumerate(batches):
            begin(micro)
            found.append(task.vectors(net, batch))
    vectors = torch.cat(found).requires_grad_()
    total = _divided(task.compared(vectors, together(batches)), counts)
    (gradient,) = torch.autograd.grad(total, vectors)
    shares = gradient.split([len(each) for each in found])
    for micro, (batch, share) in enumerate(zip(batches, shares, strict=True)):
        begin(micro)
        yield (task.vectors(net, batch) * share).sum(), total.detach() * (micro == 0)


def _divided(terms: Mapping[str, Tensor], counts: Counts) -> Tensor:
    """sum_k total_k / count_k."""
    return sum((value / max(counts[name], 1.0) for name, value in terms.items()), torch.zeros(()))


def together(batches: Sequence[Batch]) -> Batch:
    """Batches as one, row behind row; one that needed no segments has one in each row."""
    names = {name: None for batch in batches for name in batch}
    return {name: torch.cat([each.get(name, torch.ones_like(each["input_ids"])) for each in batches]) for name in names}
