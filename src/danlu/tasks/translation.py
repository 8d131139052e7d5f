"""Learn to write the translation of a text, as given in pairs, reading with an encoder and writing with a decoder."""

from collections.abc import Iterable, Sequence

from danlu.metrics import translation
from danlu.metrics.bootstrap import Sample
from danlu.tasks.answers.target import Targeted
from danlu.tasks.task import Row


class Translation(Targeted):
    """A text in another language, measured by BLEU and chrF beside the text itself."""

    known_as = ("translation",)
    stock = ("MarianMTModel",)  # type: ignore[assignment]
    options = {**Targeted.options, "longest": (256, [1, 100000], "tokens of an answer, at most")}

    def sample(self, predictions: Sequence[Row], references: Sequence[Row]) -> Sample | None:
        found, wanted = ([str(row["target"]) for row in rows] for rows in (predictions, references))
        return translation.sample(found, wanted)

    def likeness(self, found: str, wanted: str) -> float:
        return translation.chrf(found, wanted) / 100

    def baseline(self, train: Iterable[Row], held_out: Sequence[Row], order: int) -> dict[str, list[Row]]:
        """The text itself, untranslated."""
        return {"copy": [{"target": row["text"]} for row in held_out]}
