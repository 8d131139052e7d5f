"""A step of vectors that see each other, cut into micro-batches: the gradient of the whole, one micro-batch held."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from danlu import AutoModel
from danlu.data.loader import Loader
from danlu.nn.dropout import Dropout, use_generator
from danlu.proof.gradients import Named, accumulated, counted, difference, gradient, rows_of
from danlu.tasks.task import Batch, Contrastive
from danlu.train.passes import passes, together
from tests.api import bert
from tests.train.test_loss_rule import CONTEXT, EXACT, Ragged, network, row, task_of

TASK = "sentence_embedding"


def drawn(kind: str, **options: Any) -> tuple[Any, Any, list[Batch]]:
    """The task, a network in float64, and micro-batches of rows of a kind."""
    task: Any = task_of(TASK, **options)
    made = [row(index, 2 + index % 5, 1 + index % 4) for index in range(9)]
    for index, each in enumerate(made):
        scored = kind == "scored" or (kind == "mixed" and index % 2)
        each |= {"score": f"{index * 7 % 5}" if scored else None}
        each |= {"negative": None} if kind == "pairs" or index % 3 else {}
    columns: Any = Ragged(list(task.examples(made)))
    loader = Loader(columns, CONTEXT, long=task.long, seed=1, ahead=0)
    batch = loader.assemble(list(range(len(loader))))
    rows = len(batch["input_ids"])
    edges = [0, max(1, rows // 4), max(2, rows // 2), rows]
    net = network(torch.float64, "sdpa", TASK, **task.chosen)
    return task, net, [rows_of(batch, a, b) for a, b in pairwise(edges) if b > a]


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["pairs", "negatives", "scored", "mixed"])
def test_the_gradient_is_that_of_the_whole(kind: str, pool: str) -> None:
    task, net, batches = drawn(kind, pool=pool)
    assert len(batches) > 1
    whole = gradient(task, net, [together(batches)])
    assert difference(accumulated(task, net, batches), whole) <= EXACT
    naive = gradient(task, net, batches)
    assert difference(naive, whole) > 1e-3, "each micro-batch alone tells its texts apart among its own"


def test_the_loss_is_that_of_the_whole() -> None:
    task, net, batches = drawn("mixed")
    counts = counted(task, [together(batches)])
    found = [float(loss) for _, loss in passes(task, net, batches, counts, lambda micro: None, "model")]
    whole = task.loss(net, together(batches))["loss"] / counts["loss"]
    assert sum(found) == pytest.approx(float(whole.detach()), rel=1e-12)


def test_both_passes_drop_the_same() -> None:
    task, net, batches = drawn("negatives")
    net, dropout = copy.deepcopy(net), torch.Generator()
    for module in net.modules():
        if isinstance(module, Dropout):
            module.p = 0.2
    use_generator(net, dropout)

    def begin(micro: int) -> None:
        dropout.manual_seed(micro)

    def summed(terms: Any) -> Named:
        net.zero_grad()
        for total in terms:
            total.backward()
        return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}

    def at_once() -> Tensor:
        vectors = []
        for micro, batch in enumerate(batches):
            begin(micro)
            vectors.append(task.vectors(net, batch))
        return task.compared(torch.cat(vectors), together(batches))["loss"] / counts["loss"]

    counts = counted(task, batches)
    cut = summed(total for total, _ in passes(task, net, batches, counts, begin, "model"))
    assert difference(cut, summed([at_once()])) <= EXACT
    net.eval()
    assert difference(cut, summed([at_once()])) > 1e-3, "dropout was at work"


class Held:
    """A tensor that backward will need, and the bytes of all such at once."""

    now = most = 0

    def __init__(self, tensor: Tensor):
        self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
        Held.now += self.bytes
        Held.most = max(Held.most, Held.now)

    def __del__(self) -> None:
        Held.now -= self.bytes


def held(task: Contrastive, net: Any, batches: list[Batch]) -> int:
    """The most bytes that are kept for backward at once."""
    Held.now = Held.most = 0
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda each: each.tensor):
        for total, _ in passes(task, net, batches, counted(task, batches), lambda micro: None, "model"):
            total.backward()
            del total
    return Held.most


def test_no_more_than_a_micro_batch_is_held() -> None:
    task, net, batches = drawn("pairs")
    ones = [rows_of(together(batches), at, at + 1) for at in range(len(together(batches)["input_ids"]))]
    assert held(task, net, ones) < 2.2 * held(task, net, [together(batches)]) / len(ones)


def test_a_fit_is_the_same_however_a_step_is_cut(tmp_path: Path) -> None:
    folder = bert.folder(tmp_path / "bert")
    pairs = [{"text": a["text"], "positive": b["text"]} for a, b in zip(bert.rows(48), bert.rows(48, 48), strict=True)]
    found = []
    for parts in (1, 4):
        model = AutoModel.from_pretrained(folder, task=TASK)
        history = model.fit(pairs, valid=pairs[:12], **{**bert.QUICK, "steps": 4, "dropout": 0.0}, accumulate=parts)
        found.append((history["loss"], model.net.state_dict()))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-5)
    assert difference(found[1][1], found[0][1]) < 1e-4
