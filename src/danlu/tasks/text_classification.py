"""Learn to which class a text, or a pair of texts, belongs."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from danlu.data.shapes import texts
from danlu.metrics.bag import Bag
from danlu.modalities.text import Text
from danlu.nn import hiding
from danlu.tasks.answers.label import OneLabel
from danlu.tasks.task import Batch, Example, Row


class TextClassification(OneLabel):
    """One class for each text: input_ids (B, T), labels (B, T) with the class at the first token of each text.

    A row of a batch holds several texts, told apart by segment_ids; logits (N, C), one row per text, in their order.
    """

    inputs = {"text": Text, "text_pair": Text}
    outputs = {"label": Text}
    shape = "labelled"
    labelled = True
    known_as = ("sentiment-analysis",)
    stock = ("ForSequenceClassification",)
    arch = "bert"
    archs = ("bert", "textcnn")
    long = "cut"
    judges = True
    optional = ("text_pair",)
    options = {"hide": (0.0, [0.0, 0.9], "share of the tokens that training hides, each time others")}

    def encode(self, row: Row) -> Example:
        ids, kinds = self.processor.joined(*texts(row), limit=self.context)
        return {"input_ids": ids, "type_ids": kinds, "labels": self.target(row, len(ids))}

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """With `hide`, the mask stands in the place of some tokens: few rows are not learned by heart (2009.13818)."""
        if not self.chosen["hide"]:
            return batch
        ids, special = batch["input_ids"], torch.tensor(sorted(self.processor.control.values()))
        free = (batch["segment_ids"] > 0) & ~torch.isin(ids, special)
        hidden = hiding.tokens(free, self.chosen["hide"], generator)
        return {**batch, "input_ids": torch.where(hidden, self.processor.mask_id, ids)}

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """Logistic regression on a bag of the rows' 1-grams to `order`-grams."""
        learned = [self.encode(row) for row in train]
        ids, labels = [np.array(each["input_ids"]) for each in learned], [each["labels"][0] for each in learned]
        bag = Bag(ids, np.array(labels), len(self.labels), self.processor.vocab_size, order)
        shares = bag.shares([np.array(self.encode(row)["input_ids"]) for row in held_out])
        return {"bag": [self.likeliest(row) for row in shares.tolist()]}
