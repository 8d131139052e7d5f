"""Learn the number that belongs to a row of a table, from its numbers and categories."""

from collections.abc import Iterable, Sequence

from danlu.metrics.linear import Ridge
from danlu.modalities.table import Table
from danlu.tasks.answers.number import OneNumber
from danlu.tasks.task import Example, Row


class TabularRegression(OneNumber):
    """One number for each row of a table: input_ids and values (B, T), a place for each column; logits (N, 1)."""

    inputs = {"record": Table}
    outputs = {"score": Table}
    shape = "record"
    arch = "mlp"
    long = "drop"
    judges = True

    def encode(self, row: Row) -> Example:
        cells = self.processor.encode(row["record"])
        return {**cells, "labels": self.target(row, len(cells["input_ids"]))}

    def joined(self, row: Row, found: Sequence[Row]) -> Row:
        """The answer, and what of the row was missing or unknown."""
        return {**found[0], **self.processor.said(row["record"])}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Ridge regression on standardised numbers and one-hot categories."""
        rows = list(train)
        model = Ridge(
            [self.encode(row) for row in rows], [float(row["score"]) for row in rows], self.processor.vocab_size
        )
        return {"linear": [{"score": score} for score in model.predict([self.encode(row) for row in held_out])]}
