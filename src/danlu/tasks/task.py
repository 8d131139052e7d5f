"""The contract of everything that can be learned: one file per task, and the file's name is the task's name."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from danlu.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from danlu.metrics.bootstrap import Sample
    from danlu.modalities.modality import Modality
    from danlu.models.architecture import Architecture
    from danlu.nn.heads import HeadConfig

Row = dict[str, Any]
Example = dict[str, Any]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Answer:
    """The one number behind an answer that is explained, and what it is the number of: a label, a token, a place.

    `figures` of N copies of an example: that number (N,), and the share that it stands for, or the number again, (N,).
    `parts` are those of which it is the sum: the tokens of a text that is written.
    """

    name: str
    figures: Callable[[Batch], tuple[Tensor, Tensor]]
    parts: "Sequence[Answer]" = ()


class Task(ABC):
    """What is learned: how a row becomes numbers, what the loss is, what is measured and predicted.

    Losses are SUMS, and `counts` says what each is divided by, from the batch alone: the gradient of an optimizer
    step is that of sum_k total_k / count_k over all its micro-batches, never a mean of means.
    """

    inputs: ClassVar[dict[str, type["Modality"]]]
    outputs: ClassVar[dict[str, type["Modality"]]]
    parts: ClassVar[tuple[str, ...]] = ("model",)  # optimized in this order, the others frozen; a GAN has two
    # "batch": samples see each other, so a batch is never split silently; "vectors": as `Contrastive` has it
    coupled: ClassVar[str] = "none"
    # A row longer than the context is "split" anywhere, "drop"ped and counted, "cut", or read in overlapping "windows".
    long: ClassVar[str] = "split"
    sized: ClassVar[bool] = False  # whether examples are made for one context, also where rows are "split"
    step_tokens: ClassVar[int] = 2048  # of an optimizer step, where the recipe is silent
    habits: ClassVar[Mapping[str, Any]] = {}  # keys of [train] that it takes where the recipe is silent
    ahead: ClassVar[int] = 0  # how many tokens after an input its label stands
    selects: ClassVar[str] = ""  # the metric that selects the best weights by being largest; "": the smallest loss
    adversarial: ClassVar[bool] = False  # its parts work against each other: no loss tells which state is better
    judges: ClassVar[bool] = False  # it answers a row at once, instead of going on with text
    makes: ClassVar[bool] = False  # it makes new things, as `wishes` say
    judged: ClassVar[int] = 100_000  # held-out rows whose whole answers are measured, at most
    known_as: ClassVar[tuple[str, ...]] = ()  # what its pipelines are called elsewhere
    stock: ClassVar[tuple[str, ...]] = ()  # how the names of other libraries' classes that do it end
    teachable: ClassVar[bool] = False  # whether it can be learned from a teacher, too
    unsupervised: ClassVar[bool] = False  # it learns from rows as they are: a base goes on as it began
    labelled: ClassVar[bool] = False  # the rows carry labels, which are learned from those to train on
    lone: ClassVar[str] = "E251"  # the error where there is one label alone; "" = there may be
    markers: ClassVar[tuple[str, ...]] = ()  # control tokens that it needs in the vocabulary
    optional: ClassVar[tuple[str, ...]] = ()  # of the inputs: those that a row may lack
    # what a recipe may set under [options]: {name: (value unless told, words or [least, most] or None, what it is)}
    options: ClassVar[dict[str, tuple[Any, Any, str]]] = {}

    def __init__(
        self,
        processor: Any,
        labels: Sequence[str] = (),
        context: int | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.processor = processor
        self.chosen = {name: default for name, (default, *_) in self.options.items()} | dict(options)
        self.labels, self.context = tuple(labels), context  # to which a row is cut where it is too `long`
        self.noticed: Counter[str] = Counter()  # what encoding had to leave aside: [encode.NAME] of the messages

    @property
    def name(self) -> str:
        """What it is called everywhere."""
        return type(self).__module__.rpartition(".")[2]

    @classmethod
    def stated(cls, folder: "Path") -> dict[str, Any]:
        """The options that a folder of another library states in its own way."""
        return {}

    def companions(self, architecture: "Architecture") -> dict[str, Any]:
        """{name: JSON} of files that other libraries look for beside a model."""
        return {}

    @classmethod
    def modality(cls) -> "type[Modality]":
        """What the rows are read in: the modality of the first input."""
        return next(iter(cls.inputs.values()))

    @classmethod
    def read_by(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """What of the options the modality is fitted by, where its rows have no tokens."""
        known = (name for name in cls.modality().fitted_by if name in cls.options)
        return {name: options.get(name, cls.options[name][0]) for name in known}

    @classmethod
    def learns_labels(cls, options: Mapping[str, Any]) -> bool:
        """Whether the labels of its rows are learned, with these options."""
        return cls.labelled

    @property
    def wishes(self) -> dict[str, Any]:
        """{name: what it is unless told} of what can be wished of it; {} where it reads rows."""
        return {}

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        """The labels that a row to learn from carries, where rows do."""
        return [row["label"]]

    @classmethod
    def number_of(cls, row: Row) -> float | None:
        """The number that a row to learn from carries, where rows do; None where they carry no number."""
        return None

    @classmethod
    def names_of(cls, row: Row) -> dict[str, str]:
        """{label: what people call it}, as a row says it whose labels are numbers."""
        return {}

    @abstractmethod
    def encode(self, row: Row) -> Example:
        """One row as columns, once, in the encode stage."""

    def windows(self, row: Row) -> list[Example]:
        """The examples that a row becomes: several where it is longer than the context and read in windows."""
        return [self.encode(row)]

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """The examples of rows in their order; a task may need several rows to make one."""
        return (each for row in rows for each in self.windows(row))

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """What training does to a batch before the network sees it: masking, noise, augmentation."""
        return batch

    def staged(self, batch: Batch, progress: float) -> Batch:
        """What the network sees of a batch at this point of a training, from 0 at its beginning to 1: all of it."""
        return batch

    @property
    def given(self) -> float:
        """Of a step's time, what does not follow its operations."""
        return 0.2

    def share(self, progress: float) -> float:
        """The operations of a step at this point, as a share of those on whole samples."""
        return 1.0

    def posed(self, batch: Batch) -> Batch:
        """What an evaluation does to a batch before the network sees it: the same at every look."""
        return batch

    def asked(self, row: Row) -> Row:
        """A held-out row as an evaluation asks it: the same at every look."""
        return row

    @property
    def choices(self) -> tuple[str, float]:
        """Among how many answers it chooses, and the letter of that number: a blind guess has the loss ln of it."""
        return "V", self.processor.vocab_size

    def head(self, architecture: "Architecture") -> "HeadConfig":
        """What stands on the backbone: its own head, unless the task says otherwise."""
        return architecture.head

    def shaped(self, architecture: "Architecture") -> "Architecture":
        """The architecture that is trained: a backbone with the task's head, and what stands beside in training.

        Raises:
            UserError: E348, it reads one sequence and writes another, which the task does not.
        """
        if architecture.core.memory:
            raise UserError("E348", task=self.name)
        return replace(architecture, head=self.head(architecture))

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """What each loss term is divided by."""

    @abstractmethod
    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        """Loss SUMS, one per term."""

    @abstractmethod
    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Streaming sums for the metrics, added over batches."""

    @abstractmethod
    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        """Metrics from the sums, floats or tensors; the first is the loss."""

    @abstractmethod
    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """The one way from a batch to answers: evaluate, serve, command line and page all use it."""

    def asking(self, row: Row) -> list[Example]:
        """The examples of a row that is only asked about."""
        return self.windows(row)

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """What is explained of the answer to a batch of one example: the best answer, or the one that is named.

        Raises:
            UserError: E609, its answers have no such number; E610, it does not know the one that is named.
        """
        raise UserError("E609", task=self.name)

    def explained(self, net: Any, windows: Sequence[Batch], wanted: str = "") -> tuple[int, Answer]:
        """In which window of a row its answer is, of those that are batches of one example; and `answer` of that.

        Raises:
            UserError: as of `answer`.
        """
        answers = [self.answer(net, each, wanted) for each in windows]
        with torch.no_grad():
            shares = [float(answer.figures(each)[1]) for answer, each in zip(answers, windows, strict=True)]
        place = shares.index(max(shares))
        return place, answers[place]

    def blanks(self, example: Example) -> list[Example]:
        """The example with nothing said: what an explanation compares it with, on average."""
        blanks: list[Example] = self.processor.blanks(example)
        return blanks

    def joined(self, row: Row, found: Sequence[Row]) -> Row:
        """The answer to a row, from what `predict` found in each of its windows."""
        return found[0]

    def alone(self, answer: Row) -> Row:
        """The answer to a row that nobody measures, as JSON has it."""
        return answer

    def together(self, answers: list[Row], rows: Sequence[Row]) -> list[Row]:
        """The answers to rows that are measured, in the light of each other where that is what counts."""
        return answers

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> "Sample | None":
        """Predictions and the rows that they are about, so that figures of them can be had, and how sure these are."""
        return None

    def score(self, predictions: Sequence[Row], references: Sequence[Row]) -> dict[str, float]:
        """Metrics that need whole predictions."""
        sample = self.sample(predictions, references)
        return {name: float(each) for name, each in sample.figures().items() if not each.ndim} if sample else {}

    def each(self, predictions: Sequence[Row], references: Sequence[Row]) -> list[Row]:
        """The figures of each label: {"label", "rows", "f1", "precision", "recall"}; none where there are no labels."""
        return []

    def confusion(self, predictions: Sequence[Row], references: Sequence[Row]) -> Row:
        """{"labels", "matrix"}: rows of the true label, columns of the predicted; {} where rows do not have one."""
        return {}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """{name: predictions} for the held-out rows by a simple model of the rows to train on, to be set beside.

        `order`: of the n-grams that it is made of, where it is made of such.
        """
        return {}

    def beside(self, tokens: "np.ndarray", held_out: Iterable[Batch], order: int) -> dict[str, dict[str, float]]:
        """{name: figures} of n-grams of the tokens to train on, measured on the batches of an evaluation."""
        return {}

    def right(self, prediction: Row, reference: Row) -> bool | None:
        """Whether an answer is right; None where answers are better or worse, but not that."""
        return None

    def drawn(self, answer: Row, row: Row) -> dict[str, bytes]:
        """{field: PNG file} of what can be looked at of the answer to a row."""
        return {}

    def told(self, answer: Row) -> str:
        """A prediction in a few words; so is the true answer of a row."""
        return ""

    def error(self, prediction: Row, reference: Row) -> Row | None:
        """What was wrong, for people: {"given", "wanted", "found", "weight"}, the worst with most; None where right."""
        return None


class Contrastive(Task):
    """Samples that see each other through one vector each: a step may be cut, and is yet one batch (train/passes)."""

    coupled = "vectors"

    @abstractmethod
    def vectors(self, net: nn.Module, batch: Batch) -> Tensor:
        """What the network makes of each sample, or of each part of it (N, D), in the order of the batch."""

    @abstractmethod
    def compared(self, vectors: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Loss SUMS, one per term, from the vectors of all of a batch."""

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        return self.compared(self.vectors(net, batch), batch)


def place_of(wanted: str, names: Sequence[str], best: int) -> int:
    """Where a name stands among others; `best` where none is wanted.

    Raises:
        UserError: E610, it does not.
    """
    if wanted and wanted not in names:
        raise UserError("E610", found=wanted, valid=", ".join(names[:20]) or "-")
    return names.index(wanted) if wanted else best


def weighed(logits: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Of logits (N, C) those in one place, and their shares (N,)."""
    return logits[:, place], logits.softmax(-1)[:, place]


def longest_answer(example: Example) -> int:
    """The longest run of tokens that are learned, where some are not."""
    learned = "".join("1" if each else "0" for each in example.get("loss_mask", ()))
    return max(map(len, learned.split("0")))
