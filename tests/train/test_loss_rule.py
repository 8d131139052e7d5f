"""The loss rule, for every task: the gradient of a step is that of sum_k total_k / count_k, however it is made.

Lengths, masks, cuts and ranks are drawn; each document alone, in one batch, is the reference. A task joins by its file.
"""

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from danlu import catalogue, models, pixels, tasks
from danlu.data.loader import IGNORE, Loader
from danlu.modalities.image import Image
from danlu.modalities.table import Table
from danlu.modalities.text import Text
from danlu.models.architecture import build
from danlu.nn.network import Network
from danlu.proof.gradients import Named, accumulated, counted, difference, documents, gradient, padded, rows_of
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Batch, Task
from tests.serve.tiny import CORPUS, fitted

CONTEXT = 24
LABELS = ("good", "bad", "neither")
SEEING = ("cnn", "unet", "fcos", "detr", "ddpm", "dcgan", "vit")
CUT = ("accumulated", "packed and accumulated")
EXACT, SPLIT, PACKED = 1e-12, 1e-6, 1e-5
UNIT = {"tokens.weight": 50.0, "positions.weight": 10.0, "types.weight": 10.0, "table.weight": 10.0, "v.weight": 8.0}
EXAMPLES = int(os.environ.get("PROVE_EXAMPLES", 10))  # make prove-long: 60
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
WORDS = ["the", "quick", "brown", "fox", "炼丹炉", "jumps", "over", "金丹", "lazy", "dog"]


@cache
def text() -> Text:
    return fitted()


@cache
def words() -> Text:
    """A vocabulary with BERT's control tokens."""
    return Text.fit(CORPUS, type="wordpiece", vocab_size=400)


@cache
def cells() -> Table:
    return Table.fit([row(index, 2, 3)["record"] for index in range(40)])


@cache
def pictures() -> Image:
    return Image.fit([row(index, 2, 3)["image"] for index in range(20)])


def task_of(name: str, **options: Any) -> Task:
    """The task with what it needs: labels, a context to cut to, a mask token, a scale of numbers."""
    known = {**dict.fromkeys(("bert", "electra"), words), "mlp": cells, **dict.fromkeys(SEEING, pictures)}
    processor = known.get(catalogue.stated(name, "arch"), text)()
    kind: Any = tasks.load(name)
    carried = dict.fromkeys(label for index in range(20) for label in kind.labels_of(row(index, index % 4 + 1, 3)))
    given = {"scale": (2.0, 3.0)} | options
    made: Task = kind(processor.with_control(kind.markers), tuple(carried), CONTEXT, given)
    return made


@cache
def network(
    dtype: torch.dtype, form: str, task: str = "language_modeling", arch: str = "", **options: Any
) -> Network:  # fmt: skip
    """One layer without dropout, drawn for every task alike so that rounding is not made larger than it is.

    Tokens are vectors of unit size, as T5 begins. What attention brings in outweighs what it is added to,
    though it is a mean of many: else candidates differ in a twentieth of their states, and a gradient that is the
    difference between candidates is rounded at twenty times its size. Vectors, which begin at 0 and 1, are moved;
    matrices are left as drawn: moved as far, the queries of T5 would be twice as large, and its scores have no scale.
    """
    learned = task_of(task, **options)
    arch = arch or catalogue.stated(task, "arch") or "qwen3"
    sizes = {"qwen3": {"heads": 2, "head_dim": 8}, "mlp": {}}.get(arch, {"heads": 2}) | {"hidden": 32}
    sizes = learned.processor.sizes if arch in SEEING else sizes
    sizes |= {"vit": {"heads": 2, "hidden": 32, "patch": 2}, "detr": {"heads": 2, "hidden": 32, "queries": 6}}.get(
        arch, {}
    )
    vocab = learned.processor.vocab_size
    shape = models.preset(arch, vocab, CONTEXT, 1, width=16, **sizes)
    made, noise = build(learned.shaped(shape), torch.Generator().manual_seed(3)), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.mul_(next((factor for ending, factor in UNIT.items() if name.endswith("." + ending)), 1.0))
            p.add_(torch.randn(p.shape, generator=noise), alpha=0.1 if p.ndim < 2 else 0.0)
    made.core.attention_form = form
    return made.to(dtype).train()


# --- what is drawn ---


@dataclass(frozen=True)
class Drawn:
    """Rows of a task by their lengths in words, the tokens that count, and how the batch is cut."""

    lengths: list[tuple[int, int]]  # of the given part and of the answer
    masked: int  # seed of a random mask; 0 keeps the task's own
    cuts: list[float]
    form: str


DRAWN = st.builds(
    Drawn,
    lengths=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 12)), min_size=2, max_size=12),
    masked=st.integers(0, 3),
    cuts=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4),
    form=st.sampled_from(["sdpa", "written"]),
)


UNEVEN = Drawn([(1, 2), (6, 9), (3, 3), (8, 12), (2, 5)], 0, [0.2, 0.45], "sdpa")


class Ragged:
    """Columns in memory."""

    def __init__(self, examples: Sequence[dict[str, Any]]):
        self.columns = {name: [np.asarray(each[name]) for each in examples] for name in examples[0]}
        self.names, self.rows = list(self.columns), len(examples)

    def __len__(self) -> int:
        return self.rows

    def shape(self, name: str) -> tuple[int, ...] | None:
        shape = self.columns[name][0].shape
        return shape if len(shape) > 1 else None

    def arrays(self, name: str, rows: np.ndarray) -> np.ndarray:
        return np.stack([self.columns[name][row] for row in rows])

    def flat(self, name: str) -> np.ndarray:
        return np.concatenate(self.columns[name])

    def offsets(self, name: str) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(each) for each in self.columns[name]])])


def row(index: int, given_words: int, answer_words: int) -> dict[str, Any]:
    """A row that every text task can read."""
    words = [WORDS[(index * 7 + at * 3) % len(WORDS)] for at in range(given_words + answer_words)]
    question, answer = " ".join(words[:given_words]), " ".join(words[given_words:])
    both = {"text": f"{question}. {answer}", "prompt": question, "completion": answer}
    spans = [(0, len(words[0]), "first"), (len(question) + 2, len(question) + 2 + len(words[given_words]), "middle")]
    asked = {
        "question": words[0],
        "context": f"{question} {answer}",
        "answers": [(words[given_words], len(question) + 1)],
    }
    record = {"a": index * 0.7, "b": words[0], "c": given_words if index % 3 else None, "d": str(answer_words % 3)}
    learned: dict[str, Any] = {
        "label": LABELS[(index * 5 + given_words) % len(LABELS)],
        "score": f"{index * 0.3 + answer_words}",
        "labels": [label for place, label in enumerate(LABELS) if (index + answer_words) >> place & 1],
    }
    learned["choices"] = [words[0], answer, " ".join(reversed(words))][: 2 + index % 2]
    random = np.random.Generator(np.random.PCG64([index, given_words, answer_words]))
    seen = random.integers(0, 256, (6, 6, 3), np.uint8)
    learned["image"] = pixels.written(pixels.png(seen))
    numbers = random.integers(0, 4, (6, 6)).astype(np.uint8)
    learned |= {"mask": pixels.written(pixels.png(np.where(numbers == 3, 255, numbers))), "void": "255"}
    corners = random.uniform(0, 3, (2 + answer_words % 3, 2)).round(2).tolist()
    learned["boxes"] = json.dumps([[x, y, x + 2.5, y + 2.0, LABELS[n % 2]] for n, (x, y) in enumerate(corners)])
    learned["positive"], learned["negative"] = answer, question
    learned["target"] = answer
    return both | asked | learned | {"text_pair": None, "spans": spans, "record": record}


def fitting(task: Task, made: dict[str, Any]) -> dict[str, Any]:
    """The row with the marks that some tasks look for."""
    if getattr(task, "shape", "") == "choice":
        return made | {"label": str(len(made["prompt"]) % len(made["choices"]))}
    if getattr(task, "shape", "") == "alike":
        return made | {"score": None}
    marks = f"<e1>{made['prompt'][:1]}</e1> <e2>{made['completion']}</e2>"
    return made | {"text": marks} if task.markers else made


def packed(task: Task, drawn: Drawn) -> Batch:
    """All drawn rows in one packed batch, corrupted as training would."""
    rows = (fitting(task, row(index, *words)) for index, words in enumerate(drawn.lengths))
    examples = list(task.examples(rows))
    random = np.random.Generator(np.random.PCG64(drawn.masked))
    for example in examples if drawn.masked else ():
        if "loss_mask" in example:
            example["loss_mask"] = random.integers(0, 2, len(example["input_ids"]))
    columns: Any = Ragged(examples)
    long = "split" if task.ahead else task.long
    loader = Loader(columns, CONTEXT, long=long, seed=1, ahead=task.ahead)
    batch = loader.assemble(list(range(len(loader))))
    return task.corrupt(batch, torch.Generator().manual_seed(1))


def cut(batch: Batch, places: Sequence[float]) -> list[Batch]:
    """The batch in pieces that end at these shares of its rows; at least one row each."""
    rows = len(batch["input_ids"])
    edges = sorted({0, rows, *(round(rows * place) for place in places)})
    return [rows_of(batch, a, b) for a, b in pairwise(edges)]


# --- the rule ---


def ranked(task: Task, net: Network, shares: Sequence[Batch]) -> Named:
    """The sum of what ranks find, each on its share and its own copy of the network, with the counts of all."""
    counts = counted(task, shares)
    found = [gradient(task, copy.deepcopy(net), [share], counts) for share in shares]
    return {name: torch.stack([each[name] for each in found]).sum(0) for name in found[0]}


def figures(
    task: Task, drawn: Drawn, dtype: torch.dtype = torch.float64, name: str = "language_modeling", arch: str = ""
) -> dict[str, float]:
    """How far each way of making the step is from the whole batch, as ‖Δg‖/‖g‖."""
    net, batch = network(dtype, drawn.form, name, arch, **task.chosen), packed(task, drawn)
    alone = documents(batch)
    beside = padded(alone, max(CONTEXT, *(each[name].shape[1] for each in alone for name in ("input_ids", "labels"))))
    whole = gradient(task, net, [beside])
    pieces, shares = cut(beside, drawn.cuts), cut(beside, drawn.cuts[:1])
    return {
        "accumulated": difference(accumulated(task, net, pieces), whole),
        "ranks": difference(ranked(task, net, shares), whole),
        "all ranks": difference(ranked(task, net, pieces), whole),
        "packed": difference(gradient(task, net, [batch]), whole),
        "packed and accumulated": difference(accumulated(task, net, cut(batch, drawn.cuts)), whole),
        "alone": difference(gradient(task, net, alone), whole),
    }


def obeys(task: Task, drawn: Drawn, name: str = "language_modeling", arch: str = "") -> None:
    """The contract of a task. Those that say that their samples see each other are never split, so exempt.

    Samples that do so through vectors alone are cut, but not shared out.
    """
    if task.coupled == "batch":
        return
    if task.coupled == "vectors":
        exact = figures(task, drawn, name=name)
        assert max(exact[way] for way in CUT) <= EXACT, exact
        assert max(figures(task, drawn, torch.float32, name)[way] for way in CUT) <= PACKED
        return
    exact = figures(task, drawn, name=name, arch=arch)
    assert max(exact.values()) <= EXACT, exact
    rounded = figures(task, drawn, torch.float32, name, arch)
    limits = {way: SPLIT if way in ("accumulated", "ranks", "all ranks") else PACKED for way in rounded}
    assert all(rounded[way] <= limits[way] for way in rounded), rounded


def every() -> list[Task]:
    return [task_of(name) for name in tasks.names()]


@pytest.mark.parametrize("name", tasks.names())
@QUICK
@given(drawn=DRAWN)
def test_every_task_obeys_the_loss_rule(name: str, drawn: Drawn) -> None:
    obeys(task_of(name), drawn, name)


@QUICK
@given(drawn=DRAWN)
def test_boxes_said_as_a_set_obey_it(drawn: Drawn) -> None:
    obeys(task_of("object_detection"), drawn, "object_detection", "detr")


@pytest.mark.parametrize("options", [{"pairs": "next"}, {"pairs": "order", "hide": "words"}, {"hide": "spans"}])
@QUICK
@given(drawn=DRAWN)
def test_every_option_of_masking_obeys_it(options: dict[str, str], drawn: Drawn) -> None:
    obeys(task_of("masked_language_modeling", **options), drawn, "masked_language_modeling")


@QUICK
@given(drawn=DRAWN)
def test_the_whole_batch_is_what_torch_makes_of_it(drawn: Drawn) -> None:
    """The reference itself against all logits at once and torch's cross-entropy."""
    task, net = tasks.load("instruction")(text()), network(torch.float64, drawn.form)
    batch = padded(documents(packed(task, drawn)), CONTEXT)
    if not int((batch["labels"] != IGNORE).sum()):
        return
    loss = F.cross_entropy(net(batch).flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)
    found = torch.autograd.grad(loss, list(net.parameters()))
    names = [name for name, _ in net.named_parameters()]
    assert difference(gradient(task, net, [batch]), dict(zip(names, found, strict=True))) <= EXACT


def test_a_batch_without_a_counted_token_teaches_nothing() -> None:
    task, drawn = tasks.load("instruction")(text()), Drawn([(3, 4), (2, 2)], 0, [0.5], "sdpa")
    batch = packed(task, drawn)
    batch["labels"] = torch.full_like(batch["labels"], IGNORE)
    found = accumulated(task, network(torch.float64, "sdpa"), [batch, batch])
    assert all(not bool(g.any()) for g in found.values())


# --- what is left is rounding ---


def rounded(net: Network, seed: int) -> Network:
    """A copy in float64 in which every value and gradient that a part hands on is off by what float32 rounds off.

    Source: Monte Carlo arithmetic (Parker 1997): errors of at most half a unit in the last place, drawn at random.
    """
    random = torch.Generator().manual_seed(seed)

    def off(x: Tensor) -> Tensor:
        return x * (1 + 2.0**-24 * (2 * torch.rand(x.shape, generator=random, dtype=x.dtype) - 1))

    def hook(_part: Any, _read: Any, found: Any) -> Any:
        if not isinstance(found, Tensor) or not found.requires_grad:
            return None
        moved = found + (off(found) - found).detach()
        moved.register_hook(off)
        return moved

    made = copy.deepcopy(net).double()
    for part in made.modules():
        part.register_forward_hook(hook)
    return made


def unrounded(name: str, found_by: Task) -> float:
    """How often float32 is further from float64 than rounding takes float64 from itself."""
    task, net = task_of(name), network(torch.float32, "sdpa", name)
    batch = packed(task, UNEVEN)
    exact = gradient(task, copy.deepcopy(net).double(), [batch])
    by_rounding = max(difference(gradient(task, rounded(net, seed), [batch]), exact) for seed in range(3))
    return difference(gradient(found_by, net, [batch]), exact) / by_rounding


@pytest.mark.parametrize("name", tasks.names())
def test_what_float32_is_off_by_is_what_rounding_gives(name: str) -> None:
    """A few times as much, for within a part every term of a sum is rounded, and here only what it hands on."""
    assert unrounded(name, task_of(name)) <= 8


class Coarse(LanguageModeling):
    """States are rounded to 8 bits on their way to the loss."""

    def _counted(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return super()._counted(hidden.bfloat16().to(hidden.dtype), batch)


def test_a_coarser_sum_than_float32_is_caught() -> None:
    assert unrounded("language_modeling", Coarse(text())) > 100


# --- tasks that break it are caught ---


class MeanOfMeans(LanguageModeling):
    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        return {"loss": super().loss(net, batch, part)["loss"] / self.counts(batch)["loss"].clamp(min=1)}


class CountsPadding(LanguageModeling):
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": torch.tensor(batch["labels"].numel())}


class Contrast(LanguageModeling):
    """Rows are told from each other: each sample's loss depends on the others of its batch."""

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": torch.tensor(len(batch["input_ids"]))}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        states = net.hidden(batch).mean(1)
        return {"loss": F.cross_entropy(states @ states.T, torch.arange(len(states)), reduction="sum")}


class BatchNormed(LanguageModeling):
    """A state is seen relative to the mean of its batch, as in batch normalisation."""

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        hidden, labels = self._counted(net.hidden(batch), batch)
        logits = F.linear(net.head.prepare(hidden - hidden.mean(0)), net.head.weight)
        return {"loss": F.cross_entropy(logits, labels, reduction="sum")}


@pytest.mark.parametrize("broken", [MeanOfMeans, CountsPadding, Contrast, BatchNormed])
def test_a_task_that_breaks_the_rule_is_caught(broken: Callable[[Text], Task]) -> None:
    with pytest.raises(AssertionError):
        obeys(broken(text()), UNEVEN)


@pytest.mark.parametrize("name", [name for name in tasks.names() if tasks.load(name).coupled == "none"])
def test_a_mean_of_means_is_caught_whatever_the_task(name: str) -> None:
    task, broken = task_of(name), copy.copy(task_of(name))

    def loss(net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        counts = task.counts(batch)
        return {term: total / counts[term].clamp(min=1) for term, total in task.loss(net, batch, part).items()}

    broken.loss = loss  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        obeys(broken, UNEVEN, name)


@pytest.mark.parametrize("coupled", [Contrast, BatchNormed])
def test_coupling_that_is_declared_is_exempt(coupled: Any) -> None:
    task = coupled(text())
    task.coupled = "batch"
    obeys(task, UNEVEN)
    assert figures(task, UNEVEN)["accumulated"] > 1e-6, "it would have been caught"


def test_one_batch_of_every_kind_is_compared() -> None:
    """The drawn batches hold what the rule is about: several documents in a row, and pieces that count differently."""
    for task in every():
        batch = packed(task, UNEVEN)
        assert int(batch["segment_ids"].max()) > 1
        pieces = cut(padded(documents(batch), CONTEXT), UNEVEN.cuts)
        assert len({float(task.counts(piece)["loss"]) for piece in pieces}) > 1
