"""What tasks share that learn to write one text for another, as given in pairs: both sides of a row, and answers."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch

from danlu.data.shapes import targeted
from danlu.modalities.text import Text
from danlu.nn.generate import write
from danlu.nn.losses import IGNORE
from danlu.tasks.answers.written import Written, laid
from danlu.tasks.task import Batch, Example, Row


class Targeted(Written):
    """Sequence to sequence (1409.3215; 1706.03762): the loss is on all tokens of the target, its end among them.

    A row is stored as what is read and what is written, one behind the other, told apart by `parts` (0, 1); each is at
    most the context long, and keeps its end where it is cut.
    """

    inputs = {"text": Text}
    outputs = {"target": Text}
    shape = "targeted"
    arch = "t5"
    unsupervised = False
    archs = ("t5", "bart", "marian")
    ahead = 0
    long = "cut"
    judges = True
    judged = 1000
    options = {"prefix": ("", None, "what stands before every text that is read, as T5 was taught: `summarize: `")}

    # --- both sides of a row ---------------------------------------------------------------------------

    def encode(self, row: Row) -> Example:
        row = targeted.loaded(row)
        read, told = self._read(row["text"]), self._framed(row["target"])
        return {"input_ids": [*read, *told], "parts": [0] * len(read) + [1] * len(told)}

    def _read(self, text: str) -> list[int]:
        return self._framed(self.chosen["prefix"] + text)

    def _framed(self, text: str) -> list[int]:
        """The ids of a text as its tokenizer frames them, with its end; no more than the context."""
        ids = [*self._opening, *self.processor.encode(text)]
        return [*ids[: self.context and self.context - 1], self.processor.end_id]

    @cached_property
    def _opening(self) -> list[int]:
        """What a tokenizer that ends texts as we do puts before them: BART's <s>, of T5 and Marian nothing."""
        frame: list[int] = self.processor.framed("")["input_ids"]
        return frame[:-1] if frame[-1:] == [self.processor.end_id] else []

    @property
    def start_id(self) -> int:
        """BART starts from the end of a text, T5 and Marian from the filler, as their own configs say."""
        start: int = self.processor.end_id if self._opening else self.processor.pad_id
        return start

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        return self.posed(batch)

    def posed(self, batch: Batch) -> Batch:
        ids, segments, told = batch["input_ids"], batch["segment_ids"], batch["parts"] > 0
        texts = (segments + 1) // 2  # the two parts of a row are segments of their own
        read = laid(texts, [((segments > 0) & ~told, ids)], self.processor.pad_id)
        return self.both(*read, *laid(texts, [(told, ids)], IGNORE))

    # --- answers ---------------------------------------------------------------------------------------

    def asking(self, row: Row) -> list[Example]:
        return [{"input_ids": self._read(row["text"])}]

    def asked(self, row: Row) -> Row:
        return targeted.loaded(row)

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """{"target": the likeliest tokens one after the other} of each text."""
        found = write(net, batch, self.start_id, self.processor.end_id, self.limit)
        return [{"target": self.processor.decode(each)} for each in found]

    @property
    def limit(self) -> int:
        return min(self.chosen["longest"], super().limit)

    def named(self, text: str) -> list[int]:
        return self._framed(text)

    def told(self, answer: Row) -> str:
        return str(answer["target"])

    # --- figures ---------------------------------------------------------------------------------------

    @abstractmethod
    def likeness(self, found: str, wanted: str) -> float:
        """How near an answer is to the true one, from 0 to 1."""

    def error(self, prediction: Row, reference: Row) -> Row | None:
        found, wanted = prediction["target"], reference["target"]
        weight = 1 - self.likeness(found, wanted)
        return {"given": reference["text"], "wanted": wanted, "found": found, "weight": weight} if weight else None
