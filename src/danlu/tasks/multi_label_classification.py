"""Learn which labels a text, or a pair of texts, has: any number of them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu import models
from danlu.data import shapes
from danlu.data.shapes import texts
from danlu.data.shapes.multilabelled import labels as read
from danlu.metrics import multilabel
from danlu.metrics.bag import BagOfSets
from danlu.metrics.bootstrap import Sample
from danlu.modalities.text import Text
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, wide
from danlu.nn.masks import firsts
from danlu.tasks.task import Answer, Batch, Example, Row, Task, place_of

_BITS = 30  # labels of one column


class MultiLabelClassification(Task):
    """Yes or no for each label: logits (N, C), one row per text.

    labels (B, T) hold at the first token of each text its labels as bits, thirty of them, and -100 elsewhere; further
    labels are in labels_1, labels_2, ...
    """

    inputs = {"text": Text, "text_pair": Text}
    outputs = {"labels": Text}
    shape = "multilabelled"
    arch = "bert"
    archs = ("bert", "textcnn")
    long = "cut"
    judges = True
    selects = "micro_f1"
    labelled = True
    optional = ("text_pair",)
    options = {"threshold": (0.5, [0.0, 1.0], "how sure the model must be of a label to say it")}

    @classmethod
    def labels_of(cls, row: Row) -> list[str]:
        return read(row["labels"])

    def encode(self, row: Row) -> Example:
        ids, kinds = self.processor.joined(*texts(row), limit=self.context)
        known = row.get("labels") is not None
        there = {label: place for place, label in enumerate(self.labels)}
        places = [there[label] for label in read(row["labels"])] if known else []
        words = [sum(1 << place % _BITS for place in places if place // _BITS == word) for word in range(self._words)]
        columns = {_column(word): [bits] + [0] * (len(ids) - 1) for word, bits in enumerate(words)}
        columns["labels"] = [words[0] if known else IGNORE] + [IGNORE] * (len(ids) - 1)
        return {"input_ids": ids, "type_ids": kinds, **columns}

    @property
    def _words(self) -> int:
        """Columns of bits."""
        return -(-len(self.labels) // _BITS)

    @property
    def choices(self) -> tuple[str, float]:
        return "2", 2

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.label_head(architecture, len(self.labels))

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (batch["labels"] != IGNORE).sum() * len(self.labels)}

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        logits, truth = self._known(net, batch)
        return {"loss": F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")}

    def _known(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and truth (N, C), 0 or 1, of the texts whose labels are known, in fp32 or wider."""
        logits = wide(net(batch))
        words = [firsts(batch[_column(word)], batch) for word in range(self._words)]
        known = words[0] != IGNORE
        bits = torch.arange(_BITS, device=logits.device)
        truth = torch.cat([(word[known, None] >> bits) & 1 for word in words], 1)[:, : len(self.labels)]
        return logits[known], truth.to(logits.dtype)

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, truth = self._known(net, batch)
        said = (logits.sigmoid() >= self.chosen["threshold"]).double()
        counts = torch.stack([(said * truth).sum(0), said.sum(0), truth.double().sum(0)])
        return {
            "loss": F.binary_cross_entropy_with_logits(logits.double(), truth.double(), reduction="sum"),
            "counts": counts,
            "rows": torch.tensor([float((said == truth).all(1).sum()), float(len(truth))]),
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        right, said, true = sums["counts"].numpy()
        exact, rows = sums["rows"].tolist()
        each = np.divide(2 * right, said + true, out=np.zeros(len(right)), where=said + true > 0)
        micro = 2 * right.sum() / max(said.sum() + true.sum(), 1)
        loss = float(sums["loss"]) / max(rows * len(self.labels), 1)
        return {"loss": loss, "micro_f1": micro, "macro_f1": each.mean(), "subset_accuracy": exact / max(rows, 1)}

    def predict(self, net: nn.Module, batch: Batch) -> list[Row]:
        """The labels of each text that the model is sure enough of, and the score of every label."""
        with torch.no_grad():
            shares = wide(net(batch)).sigmoid()
        return [self._said(row) for row in shares.tolist()]

    def answer(self, net: nn.Module, batch: Batch, wanted: str = "") -> Answer:
        """The logit of a label: the surest, unless one is named."""
        with torch.no_grad():
            place = place_of(wanted, self.labels, int(net(batch)[0].argmax()))

        def figures(seen: Batch) -> tuple[Tensor, Tensor]:
            logits = wide(net(seen))[:, place]
            return logits, logits.sigmoid()

        return Answer(self.labels[place], figures)

    def _said(self, shares: Sequence[float]) -> Row:
        scores = dict(zip(self.labels, shares, strict=True))
        said = [name for name, share in scores.items() if share >= self.chosen["threshold"]]
        return {"labels": said, "scores": scores}

    # --- whole predictions ---

    def _sets(self, rows: Sequence[Row]) -> np.ndarray:
        """Which labels rows have, bool (N, C)."""
        return np.array([[label in row["labels"] for label in self.labels] for row in rows], bool)

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        return multilabel.sample(self._sets(references), self._sets(predictions))

    def each(self, predictions: Sequence[Row], references: Sequence[Row]) -> list[Row]:
        truth = self._sets(references)
        figures = multilabel.sample(truth, self._sets(predictions)).figures()
        return [
            {"label": label, "rows": int(truth[:, place].sum())}
            | {name: float(figures[name][place]) for name in ("f1", "precision", "recall")}
            for place, label in enumerate(self.labels)
        ]

    def right(self, prediction: Row, reference: Row) -> bool:
        return set(prediction["labels"]) == set(reference["labels"])

    def told(self, answer: Row) -> str:
        return ", ".join(answer["labels"]) or "—"

    def error(self, prediction: Row, reference: Row) -> Row | None:
        apart = len(set(prediction["labels"]) ^ set(reference["labels"]))
        found = {"wanted": self.told(reference), "found": self.told(prediction), "weight": apart}
        return {"given": shapes.plain(reference), **found} if apart else None

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Logistic regression for each label on a bag of the rows' 1-grams to `order`-grams."""
        learned = list(train)
        ids = [np.array(self.encode(row)["input_ids"]) for row in learned]
        bag = BagOfSets(ids, self._sets(learned), self.processor.vocab_size, order)
        shares = bag.shares([np.array(self.encode(row)["input_ids"]) for row in held_out])
        return {"bag": [self._said(row) for row in shares.tolist()]}


def _column(word: int) -> str:
    return f"labels_{word}" if word else "labels"
