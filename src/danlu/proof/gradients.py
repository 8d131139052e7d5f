"""The loss rule: the gradient of a step is that of sum_k total_k / count_k, however its rows are cut or laid out.

The reference is automatic differentiation of that sum over one whole batch; beside it the training loop's own
accumulation, and other layouts of the same documents.
Shapes: B rows · T time
"""

import copy
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from danlu.config import Train
from danlu.data.loader import IGNORE, Loader, Shape
from danlu.nn.masks import openings
from danlu.nn.network import DECODER
from danlu.proof.certificate import Check
from danlu.proof.twin import Twin
from danlu.tasks.task import Batch, Task
from danlu.train import compiling
from danlu.train.distributed import Alone
from danlu.train.loop import Training, prefix
from danlu.train.plan import Plan
from danlu.train.precision import Masters

Named = dict[str, Tensor]
ROWS = 8
EXACT, ROUNDED = 1e-12, 1e-5  # limits in float64, and in float32 where sums are made in another order


# --- cutting and laying out ---


def cut(batch: Batch, parts: int) -> list[Batch]:
    """The batch in at most `parts` pieces of unequal numbers of rows: equal ones would hide a mean of means."""
    rows = len(batch["input_ids"])
    edges = sorted({round(rows * (part / parts) ** 1.6) for part in range(parts + 1)})
    return [rows_of(batch, a, b) for a, b in itertools.pairwise(edges)]


def whole(tensor: Tensor) -> bool:
    """Whether a column holds one array of each document (N, ...), not one number of each token (B, T)."""
    return tensor.ndim != 2


def rows_of(batch: Batch, first: int, last: int) -> Batch:
    """Some rows of a batch, and the arrays of the documents in them."""
    edges = [0, *openings(batch["segment_ids"]).sum(1).cumsum(0).tolist()]
    return {n: t[edges[first] : edges[last]] if whole(t) else t[first:last] for n, t in batch.items()}


def documents(batch: Batch) -> list[Batch]:
    """Each document of packed rows as a batch (1, t) of its own; all its parts where it has several."""
    found = list[Batch]()
    for row in range(len(batch["segment_ids"])):
        for number in sorted(set(_numbered(batch, row).tolist()) - {0}):
            read, told = _numbered(batch, row) == number, batch[numbers_of("labels", batch)][row] == number
            own = {name: read if numbers_of(name, batch) == "segment_ids" else told for name in batch}
            arrays = {name: tensor[len(found)][None] for name, tensor in batch.items() if whole(tensor)}
            made = {name: tensor[row][own[name]][None] for name, tensor in batch.items() if name not in arrays}
            made |= arrays
            parts = made["parts"] if "parts" in made else torch.zeros_like(made["segment_ids"])
            made |= {name: torch.ones_like(made[name]) for name in made if name.endswith("segment_ids")}
            found.append(made | {"segment_ids": parts + 1})
    return found


def numbers_of(name: str, batch: Batch) -> str:
    """The column that tells which document each token of a column is of: that of the decoder, where it is its own."""
    writes = DECODER + "segment_ids" in batch and (name.startswith(DECODER) or name == "labels")
    return DECODER + "segment_ids" if writes else "segment_ids"


def _numbered(batch: Batch, row: int) -> Tensor:
    """The number of the document that each token of a row is of (T,), from 1; 0 for padding."""
    segments = batch["segment_ids"][row]
    if "parts" not in batch:
        return segments
    begins = (batch["parts"][row] == 0) & (segments > 0) & (batch["position_ids"][row] == 0)
    return torch.where(segments > 0, begins.cumsum(0), 0)


def padded(rows: Sequence[Batch], length: int) -> Batch:
    """Documents (1, t) as one batch (B, length), filled on the right."""
    return {name: torch.cat([_filled(row[name], name, length) for row in rows]) for name in rows[0]}


def _filled(tensor: Tensor, name: str, length: int) -> Tensor:
    if whole(tensor):
        return tensor
    filler: float = (math.nan if tensor.is_floating_point() else IGNORE) if name == "labels" else 0
    return nn.functional.pad(tensor, (0, length - tensor.shape[1]), value=filler)


# --- gradients ---


def counted(task: Task, batches: Sequence[Batch]) -> dict[str, float]:
    """What each term is divided by, over all batches."""
    sums: dict[str, float] = {}
    for batch in batches:
        for name, value in task.counts(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def gradient(task: Task, net: nn.Module, batches: Sequence[Batch], counts: Mapping[str, float] | None = None) -> Named:
    """By automatic differentiation of sum_k total_k / count_k; `counts` are those of the batches unless given.

    Of a network of several parts each has the gradient of its own loss, the others as they are.
    """
    counts = counted(task, batches) if counts is None else counts
    found = dict[str, Tensor]()
    for part in task.parts:
        params = {n: p for n, p in net.named_parameters() if p.requires_grad and n.startswith(prefix(part))}
        terms = [task.loss(net, batch, part) for batch in batches]
        total = torch.stack([value / max(counts[name], 1.0) for each in terms for name, value in each.items()]).sum()
        gradients = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        found |= {
            n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(params.items(), gradients, strict=True)
        }
    return found


class Wide(Masters):
    """Masters that keep the gradients of all parts."""

    def __init__(self, net: nn.Module, dtype: torch.dtype):
        super().__init__(net, dtype)
        self.every = Named()

    def clear(self) -> None:
        self.every |= self.gradients
        super().clear()


class _Given:
    """A loader of one step whose micro-batches are given."""

    def __init__(self, batches: Sequence[Batch]):
        self.batches, self.context = batches, batches[0]["input_ids"].shape[1]

    def train(self, step: int, micro: int, shape: object) -> Batch:
        return self.batches[micro]


def accumulated(task: Task, net: nn.Module, batches: Sequence[Batch]) -> Named:
    """The gradient of one optimizer step of the training loop, with a micro-batch for each of the batches."""
    task = copy.copy(task)
    task.corrupt = lambda batch, generator: batch  # type: ignore[method-assign]  # what is compared is corrupted already
    task.staged = lambda batch, progress: batch  # type: ignore[method-assign]
    return first_step(task, net, _Given(batches), Shape(len(batches[0]["input_ids"]), len(batches)))  # type: ignore[arg-type]


def first_step(
    task: Task, net: nn.Module, loader: Loader, shape: Shape, seed: int = 0, together: Alone | None = None
) -> Named:
    """The gradient of the first optimizer step of the training loop, summed over the ranks where there are several."""
    plan = Plan(
        depth=0, rows=shape.rows, accumulate=shape.accumulate, context=loader.context, optimizer="sgd", lr=0.0,
        weight_decay=0.0, precision="fp32", threads=torch.get_num_threads(), steps=1,
    )  # fmt: skip
    training = Training(task, copy.deepcopy(net), Train(clip=0.0), plan, seed, together)
    training.masters = masters = Wide(training.net, torch.float32)
    next(training.events(loader, None))  # at a rate of 0: what a part learns, the next one does not see
    found, params = masters.every | masters.gradients, masters.params
    return {name: found[name] if name in found else torch.zeros_like(p) for name, p in params.items()}


def difference(found: Named, wanted: Named) -> float:
    """‖found - wanted‖ / ‖wanted‖ over all parameters together; infinite where one lacks a parameter."""
    if set(found) != set(wanted):
        return math.inf
    apart = math.sqrt(sum(float((found[n].double() - g.double()).square().sum()) for n, g in wanted.items()))
    return apart / max(math.sqrt(sum(float(g.double().square().sum()) for g in wanted.values())), 1e-300)


# --- the checks ---


def batch_of(twin: Twin) -> Batch:
    """Packed rows of the twin, corrupted as training would."""
    loader = twin.loader()
    batch = next(loader.evaluation(ROWS, limit=min(ROWS, len(loader))))
    return twin.task.staged(twin.task.corrupt(batch, torch.Generator().manual_seed(twin.seed)), 0.0)


def side_by_side(batch: Batch) -> Batch:
    """Rows (B, T) in pairs as (B // 2, 2 T): each holds several documents, however long they are."""
    half = len(batch["input_ids"]) // 2
    if not half:
        return batch
    left, right = (rows_of(batch, a, a + half) for a in (0, half))
    most = left["segment_ids"].max()
    for name in (name for name in batch if name.endswith("segment_ids")):
        right[name] = torch.where(right[name] > 0, right[name] + most, 0)
    order = documents_of(left, right)
    return {name: torch.cat([left[name], right[name]])[order] if whole(left[name])
            else torch.cat([left[name], right[name]], 1) for name in batch}  # fmt: skip


def documents_of(left: Batch, right: Batch) -> Tensor:
    """Where the documents of rows that are laid side by side lie among those of the left and then the right rows."""
    counts = [openings(each["segment_ids"]).sum(1) for each in (left, right)]
    places = torch.arange(int(sum(each.sum() for each in counts)))
    sides = [iter(each.split(count.tolist())) for each, count in
             zip(places.split([int(each.sum()) for each in counts]), counts, strict=True)]  # fmt: skip
    return torch.cat([next(side) for _ in counts[0] for side in sides])


def layouts(twin: Twin) -> list[Check]:
    """Packed equals every document alone and every document padded, in float64 and float32.

    Documents that see each other are never alone.
    """
    batch, checks = side_by_side(batch_of(twin)), []
    alone = documents(batch)
    beside = padded(alone, twin.loader().context)
    for dtype, suffix, limit in ((torch.float64, "", EXACT), (torch.float32, "_fp32", ROUNDED)):
        net = twin.exact(dtype)
        packed = gradient(twin.task, net, [batch])
        if twin.task.coupled == "none":
            checks.append(Check(f"unpacked{suffix}", difference(gradient(twin.task, net, alone), packed), limit))
        checks.append(Check(f"padded{suffix}", difference(gradient(twin.task, net, [beside]), packed), limit))
    return checks


def splits(twin: Twin) -> Check:
    """Accumulated micro-batches equal the whole batch."""
    batch, net = batch_of(twin), twin.exact()
    micro = accumulated(twin.task, net, cut(batch, 3))
    return Check("accumulated", difference(micro, gradient(twin.task, net, [batch])), EXACT)


def compiled(twin: Twin) -> Check:
    """Blocks compiled to programs learn as they do uncompiled; in float32, as programs are built for it."""
    batch, net = batch_of(twin), twin.exact(torch.float32)
    eager = gradient(twin.task, net, [batch])
    compiling.switch(net, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler, about itself
        return Check("compiled", difference(gradient(twin.task, net, [batch]), eager), ROUNDED)
