"""Learn how two things that are marked in a text are related."""

from collections.abc import Sequence

import numpy as np

from danlu.data.shapes import Flaw, Row, marked
from danlu.errors import UserError
from danlu.messages import text as message
from danlu.metrics import classification, relations
from danlu.metrics.bootstrap import Sample
from danlu.modalities.text import Text
from danlu.nn.losses import IGNORE
from danlu.tasks.task import Example
from danlu.tasks.text_classification import TextClassification


class RelationExtraction(TextClassification):
    """One relation for each text, in which <e1>one thing</e1> and <e2>another</e2> are marked.

    The marks become control tokens of the vocabulary, around the words that they mark (Baldini Soares et al. 2019,
    arXiv:1906.03158). Of a text longer than the context, what is far from the marks is cut off.
    """

    inputs = {"text": Text}
    outputs = {"label": Text}
    shape = "marked"
    arch = "bert"
    archs = ("bert",)  # type: ignore[assignment]
    stock = known_as = ()  # type: ignore[assignment]  # the class is the classifier's
    long = "cut"
    judges = True
    selects = "relation_f1"
    labelled = True
    optional = ()  # type: ignore[assignment]
    options = {
        "around": (1000, [0, 100000], "tokens before the first mark and after the last that are read"),
        "hide": (0.0, [0.0, 0.9], "share of the tokens that training hides, each time others"),
    }
    markers = ("[E1]", "[/E1]", "[E2]", "[/E2]")

    def encode(self, row: Row) -> Example:
        ids = [self.processor.opening, *self._near(self._marked(row["text"])), self.processor.closing]
        label = self.labels.index(row["label"]) if row.get("label") is not None else IGNORE
        return {"input_ids": ids, "type_ids": [0] * len(ids), "labels": [label] + [IGNORE] * (len(ids) - 1)}

    def _marked(self, text: str) -> list[int]:
        """The ids of a text with its marks.

        Raises:
            UserError: E254, it has not just one of each mark.
        """
        control = {tag: self.processor.control[name] for tag, name in zip(marked.TAGS, self.markers, strict=True)}
        try:
            parts = marked.parts(text)
        except Flaw as flaw:
            raise UserError("E254", reason=message(f"data.flaw.{flaw.key}", **flaw.fields)) from flaw
        return [i for part in parts for i in ([control[part]] if part in control else self.processor.encode(part))]

    def _near(self, ids: list[int]) -> list[int]:
        """The ids between the marks and so many around; no more than there is room for, the marks in their middle."""
        room = (self.context or 2**30) - 2
        marks = {self.processor.control[name] for name in self.markers}
        places = [place for place, index in enumerate(ids) if index in marks]
        ids = ids[max(0, places[0] - self.chosen["around"]) : places[-1] + 1 + self.chosen["around"]]
        places = [place for place, index in enumerate(ids) if index in marks]
        start = (places[0] + places[-1] + 1 - room) // 2
        start = max(0, min(start, len(ids) - room))
        return ids[start : start + room]

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        truth, found = self._numbers(references), self._numbers(predictions)
        return classification.sample_by(truth, found, len(self.labels), self.summary)

    def summary(self, matrix: np.ndarray) -> dict[str, float]:
        return relations.summary(matrix, self.labels)
