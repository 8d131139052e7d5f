"""Learn to write the summary of a text, as given in pairs, reading with an encoder and writing with a decoder."""

from collections.abc import Iterable, Sequence

from danlu.metrics import rouge
from danlu.metrics.bootstrap import Sample, means
from danlu.metrics.overlap import sentences
from danlu.tasks.answers.target import Targeted
from danlu.tasks.task import Row


class Summarization(Targeted):
    """A shorter text of the same language, measured by ROUGE beside the text's first sentence."""

    known_as = ("summarization",)
    stock = ("BartForConditionalGeneration",)  # type: ignore[assignment]
    options = {**Targeted.options, "longest": (128, [1, 100000], "tokens of an answer, at most")}

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        pairs = zip(predictions, references, strict=True)
        return means(rouge.scores([(found["target"], row["target"]) for found, row in pairs]))

    def likeness(self, found: str, wanted: str) -> float:
        return float(rouge.scores([(found, wanted)])["rouge_l"][0]) / 100

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """The first sentence of the text, a strong summary of news (Nallapati et al. 2017, arXiv:1611.04230)."""
        return {"first": [{"target": next(iter(sentences(row["text"])), "")} for row in held_out]}
