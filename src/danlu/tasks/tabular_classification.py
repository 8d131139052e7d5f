"""Learn to which class a row of a table belongs, from its numbers and categories."""

from collections.abc import Iterable, Sequence

import numpy as np

from danlu.metrics.linear import Logistic
from danlu.modalities.table import Table
from danlu.modalities.text import Text
from danlu.tasks.answers.label import OneLabel
from danlu.tasks.task import Example, Row


class TabularClassification(OneLabel):
    """One class for each row of a table: input_ids and values (B, T), a place for each column; logits (N, C)."""

    inputs = {"record": Table}
    outputs = {"label": Text}
    shape = "record"
    arch = "mlp"
    long = "drop"
    judges = True
    labelled = True

    def encode(self, row: Row) -> Example:
        cells = self.processor.encode(row["record"])
        return {**cells, "labels": self.target(row, len(cells["input_ids"]))}

    def joined(self, row: Row, found: Sequence[Row]) -> Row:
        """The answer, and what of the row was missing or unknown."""
        return {**found[0], **self.processor.said(row["record"])}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Logistic regression on standardised numbers and one-hot categories."""
        learned = [self.encode(row) for row in train]
        model = Logistic(learned, np.array([each["labels"][0] for each in learned]), self.processor.vocab_size)
        shares = model.shares([self.encode(row) for row in held_out], len(self.labels))
        return {"linear": [self.likeliest(row) for row in shares.tolist()]}
