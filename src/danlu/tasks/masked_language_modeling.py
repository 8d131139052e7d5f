"""Learn to fill in words that are hidden in text, and whether two passages belong together, as BERT does."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu import models
from danlu.data.pairs import pairs, sentences
from danlu.errors import UserError
from danlu.models.architecture import Architecture
from danlu.nn import hiding
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, chunked_cross_entropy, token_losses, wide
from danlu.nn.masks import openings
from danlu.randomness import generator, stream
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Answer, Batch, Example, Row

MASKED, RANDOM = 0.8, 0.1  # what stands in the place of a hidden token: the mask, another token; else the token itself
AROUND = 3  # control tokens of a pair


class MaskedLanguageModeling(LanguageModeling):
    """Masked language modelling (1810.04805): labels (B, T) hold the tokens that are hidden, anew in each epoch.

    With pairs, `follows` (B, T) holds at the first token of each text 0 where its second passage follows its first,
    and 1 where not.
    """

    arch = "bert"
    known_as = ("fill-mask",)
    stock = ("ForMaskedLM",)  # type: ignore[assignment]
    ahead = 0
    sized = True
    options = {
        "share": (0.15, [0.01, 0.9], "share of the tokens that are hidden"),
        "hide": ("tokens", ("tokens", "words", "spans"), "what is hidden as a whole"),
        "pairs": ("none", ("none", "next", "order"), "whether passages follow, or stand in order, is learned beside"),
    }

    def encode(self, row: Row) -> Example:
        return {"input_ids": self.processor.joined(row["text"])[0]}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        if not self.paired:
            return super().examples(rows)
        documents = (self.processor.encode_batch(sentences(row["text"])) for row in rows)
        found = pairs(documents, (self.context or 0) - AROUND, self.chosen["pairs"], stream(0, "pairs"))
        return (self._pair(each.first, each.second, each.label) for each in found)

    def _pair(self, first: list[int], second: list[int], label: int) -> Example:
        ids, kinds = self.processor.joined_ids(first, second)
        return {"input_ids": ids, "type_ids": kinds, "follows": [label] * len(ids)}

    @property
    def paired(self) -> bool:
        return bool(self.chosen["pairs"] != "none")

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.joint_head(architecture) if self.paired else models.word_head(architecture)

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        ids = batch["input_ids"]
        hidden = self._hidden(batch, generator)
        fate = torch.rand(ids.shape, generator=generator)
        other = torch.randint(self.processor.vocab_size, ids.shape, generator=generator)
        seen = torch.where(fate < MASKED, self.processor.mask_id, torch.where(fate < MASKED + RANDOM, other, ids))
        return {**batch, "input_ids": torch.where(hidden, seen, ids), "labels": torch.where(hidden, ids, IGNORE)}

    def _hidden(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """(B, T): the tokens that are to be found."""
        ids, segments, share = batch["input_ids"], batch["segment_ids"], self.chosen["share"]
        free = (segments > 0) & ~torch.isin(ids, self._special)
        if self.chosen["hide"] == "words":
            return hiding.words(free, self._inside[ids], share, generator)
        if self.chosen["hide"] == "spans":
            return hiding.spans(free, segments, share, generator)
        return hiding.tokens(free, share, generator)

    @cached_property
    def _special(self) -> Tensor:
        return torch.tensor(sorted(self.processor.control.values()))

    @cached_property
    def _inside(self) -> Tensor:
        return torch.tensor(self.processor.inside())

    def posed(self, batch: Batch) -> Batch:
        return self.corrupt(batch, generator(0, "posed"))

    # --- losses ----------------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        words = super().counts(batch)
        return words | {"follows": openings(batch["segment_ids"]).sum()} if self.paired else words

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        hidden = net.hidden(batch)
        states, labels = self._counted(hidden, batch)
        head = self._words(net)
        found = chunked_cross_entropy(head.prepare(states), head.weight, labels, bias=head.bias, ignore=None)
        if not self.paired:
            return {"loss": found}
        logits, follows = self._follows(net, hidden, batch)
        return {"loss": found, "follows": F.cross_entropy(logits, follows, reduction="sum")}

    def _words(self, net: Any) -> Any:
        return net.head.vocabulary if self.paired else net.head

    def _follows(self, net: Any, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) in fp32 or wider and labels (N,) of the texts of a batch."""
        logits = net.head.label(net.head.label.pool(hidden, batch))
        return wide(logits), batch["follows"][openings(batch["segment_ids"])]

    # --- figures ---------------------------------------------------------------------------------------

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        hidden = net.hidden(batch)
        states, labels = self._counted(hidden, batch)
        head = self._words(net)
        losses, hits = token_losses(head.prepare(states), head.weight, labels, bias=head.bias)
        sums = {
            "loss": losses.cpu().double().sum(),
            "tokens": torch.tensor(float(len(labels))),
            "correct": hits.sum(),
            "bytes": torch.zeros(()),
        }
        if not self.paired:
            return sums
        logits, follows = self._follows(net, hidden, batch)
        return sums | {
            "follows_loss": F.cross_entropy(logits.double(), follows, reduction="sum"),
            "follows_correct": (logits.argmax(-1) == follows).sum(),
            "pairs": torch.tensor(float(len(follows))),
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        metrics = super().report(sums)
        if not self.paired:
            return metrics
        pairs = max(float(sums["pairs"]), 1.0)
        metrics["loss"] += float(sums["follows_loss"]) / pairs  # what is trained, and selects the best weights
        return metrics | {"follows_accuracy": float(sums["follows_correct"]) / pairs}

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """The most likely tokens in each place that is masked, row after row."""
        with torch.no_grad():
            logits = self._words(net)(net.hidden(batch)[batch["input_ids"] == self.processor.mask_id]).float()
        values, ids = logits.softmax(-1).topk(5)
        return [self._shown(*each) for each in zip(ids, values, strict=True)]

    def asking(self, row: Row) -> list[Example]:
        """A text in which the mask is written where a token is to be found; of a long one what is around the masks.

        Raises:
            UserError: E146, nothing is masked; E612, the masks are farther apart than is read at once.
        """
        processor, given = self.processor, row["text"]
        mask = next(name for name, index in processor.control.items() if index == processor.mask_id)
        if mask not in given:
            raise UserError("E146", mask=mask)
        *before, last = given.split(mask)
        pieces = [processor.encode(piece.rstrip(" ") if mask == "<mask>" else piece) for piece in before]
        inner = [index for piece in pieces for index in (*piece, processor.mask_id)]
        return [{"input_ids": [processor.opening, *self._around([*inner, *processor.encode(last)]), processor.closing]}]

    def _around(self, ids: list[int]) -> list[int]:
        """As many ids as there is room for, with the masks in their middle."""
        room = (self.context or 2**30) - 2
        places = [place for place, index in enumerate(ids) if index == self.processor.mask_id]
        if places[-1] - places[0] >= room:
            raise UserError("E612", found=places[-1] + 1 - places[0], limit=room)
        start = max(0, min((places[0] + places[-1] + 1 - room) // 2, len(ids) - room))
        return ids[start : start + room]

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """The logit of a token in the first place that is masked."""
        place = int((batch["input_ids"][0] == self.processor.mask_id).nonzero()[0])
        return self._at(net, self._words(net), batch, place, wanted)
