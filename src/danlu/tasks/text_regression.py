"""Learn the number that belongs to a text, or to a pair of texts: how alike they are, say."""

from collections.abc import Iterable, Sequence

import numpy as np

from danlu.data.shapes import texts
from danlu.metrics.bag import BagOfNumbers, overlap
from danlu.modalities.text import Text
from danlu.tasks.answers.number import OneNumber
from danlu.tasks.task import Example, Row


class TextRegression(OneNumber):
    """One number for each text: input_ids (B, T), labels (B, T) with the number at the first token of each text."""

    inputs = {"text": Text, "text_pair": Text}
    outputs = {"score": Text}
    shape = "scored"
    arch = "bert"
    archs = ("bert", "textcnn")
    long = "cut"
    judges = True
    optional = ("text_pair",)

    def encode(self, row: Row) -> Example:
        ids, kinds = self.processor.joined(*texts(row), limit=self.context)
        return {"input_ids": ids, "type_ids": kinds, "labels": self.target(row, len(ids))}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Ridge regression on a bag of n-grams; of pairs of texts, on how many of their tokens they share."""
        learned = list(train)
        numbers = np.array([float(row["score"]) for row in learned])
        if all(texts(row)[1] is not None for row in learned):
            slope, start = np.polyfit([self._shared(row) for row in learned], numbers, 1)
            return {"overlap": [{"score": float(slope * self._shared(row) + start)} for row in held_out]}
        bag = BagOfNumbers([self._ids(row) for row in learned], numbers, self.processor.vocab_size, order)
        return {"bag": [{"score": score} for score in bag.predict([self._ids(row) for row in held_out]).tolist()]}

    def _ids(self, row: Row) -> np.ndarray:
        return np.array(self.encode(row)["input_ids"], np.int64)

    def _shared(self, row: Row) -> float:
        first, second = texts(row)
        return overlap(self.processor.encode(first), self.processor.encode(second or ""))
