"""Learn to fill in spans that are hidden in text, reading with an encoder and writing with a decoder, as T5 does."""

import math
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danlu.errors import UserError
from danlu.metrics.ngram import NGram
from danlu.nn import hiding
from danlu.nn.generate import write
from danlu.nn.losses import IGNORE, token_losses
from danlu.nn.masks import endings, openings
from danlu.randomness import generator
from danlu.tasks.answers.written import LONGEST, Written, laid
from danlu.tasks.task import Batch, Example, Row

MOST = 99  # spans of a text: each has a sentinel, and one more ends what is written
_SENTINEL = re.compile(r"(<extra_id_\d\d?>)")


class SpanDenoising(Written):
    """Span corruption (1910.10683, 3.1.4 and 3.3.4): spans of a text are hidden, anew in each epoch, each behind a
    sentinel of its own; the decoder writes every sentinel and what it hides, and one more sentinel.

    input_ids (B, S) hold the text with its sentinels; labels (B, T) what is written, decoder_input_ids (B, T) what
    stands before each of them, -100 = not counted. Texts of one row are told apart by segment_ids on both sides.
    """

    unsupervised = True
    arch = "t5"
    ahead = 0
    judges = True
    judged = 64
    known_as = ("text2text-generation",)
    stock = ("T5ForConditionalGeneration",)  # type: ignore[assignment]
    markers = tuple(f"<extra_id_{number}>" for number in range(MOST + 1))
    options = {
        "share": (0.15, [0.01, 0.9], "share of the tokens that are hidden"),
        "span": (3.0, [1.0, 50.0], "tokens of a hidden span, on average"),
    }

    def encode(self, row: Row) -> Example:
        return {"input_ids": [*self.processor.encode(row["text"]), self.processor.end_id]}

    @cached_property
    def _sentinels(self) -> Tensor:
        return torch.tensor([self.processor.control[name] for name in self.markers])

    @cached_property
    def _special(self) -> Tensor:
        return torch.tensor(sorted(self.processor.control.values()))

    @cached_property
    def _is_special(self) -> Tensor:
        """(V,) whether a token is a control token: looked up for every token of every batch."""
        size = max(self.processor.vocab_size, int(self._special[-1]) + 1)
        return torch.zeros(size, dtype=torch.bool).index_fill(0, self._special, True)

    # --- what is hidden --------------------------------------------------------------------------------

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        ids, segments = batch["input_ids"], batch["segment_ids"]
        hidden = self._hidden(ids, segments, generator)
        first = hidden & ~_follows(hidden, segments)
        number = self._numbers(first, segments)
        sentinel, closing = self._sentinels[number.clamp(min=0)], self._sentinels[(number + 1).clamp(max=MOST)]
        end, ends = torch.full_like(ids, self.processor.end_id), endings(segments)
        shown = laid(segments, [(first, sentinel), (~hidden & (segments > 0), ids)], self.processor.pad_id)
        told = laid(segments, [(first, sentinel), (hidden, ids), (ends, closing), (ends, end)], IGNORE)
        return self.both(*shown, *told)

    def _hidden(self, ids: Tensor, segments: Tensor, generator: torch.Generator) -> Tensor:
        """(B, T): the tokens that are to be found."""
        free = (segments > 0) & ~self._is_special[ids]
        return hiding.few_spans(free, segments, self.chosen["share"], self.chosen["span"], MOST, generator)

    def _numbers(self, first: Tensor, segments: Tensor) -> Tensor:
        """(B, T): the number of the last span of its text that began so far, from 0; -1 before the first."""
        count = first.cumsum(1)
        before = torch.where(openings(segments), count - first.long(), 0).cummax(1).values
        return count - before - 1

    def posed(self, batch: Batch) -> Batch:
        return self.corrupt(batch, generator(0, "posed"))

    # --- figures ---------------------------------------------------------------------------------------

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        states, labels = self._counted(net.hidden(batch), batch)
        states, weight, words = net.head.prepare(states), net.head.weight, self._words(net.head.weight)
        losses, _ = token_losses(states, weight, labels)
        real = words[labels] == 0
        hidden, hits = token_losses(states[real], weight, labels[real], bias=words)
        return {
            "loss": losses.cpu().double().sum(),
            "targets": torch.tensor(float(len(labels))),
            **self._sums(hidden.cpu().double(), hits, labels[real].cpu()),
        }

    def _words(self, weight: Tensor) -> Tensor:
        """(V,) 0 for tokens of text, -inf for all others: added to logits, it says that a token of text is hidden."""
        words = torch.full((len(weight),), -math.inf)
        words[: self.processor.vocab_size] = 0.0
        return words.index_fill(0, self._special, -math.inf).to(weight.device)

    def _sums(self, losses: Tensor, hits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Sums over hidden tokens (N,)."""
        bytes_ = self._token_bytes[labels].sum()
        return {
            "hidden": losses.sum(),
            "tokens": torch.tensor(float(len(labels))),
            "correct": hits.sum(),
            "bytes": bytes_,
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        """The loss that is trained, of all that is written; the other figures are of the hidden tokens alone, among
        all tokens of text: as n-grams have it, who are told that there stands no sentinel.
        """
        found = super().report(sums | {"loss": sums["hidden"]})
        trained = float(sums["loss"]) / float(sums["targets"]) if sums["targets"] else math.nan
        return {"loss": trained, "hidden_loss": found.pop("loss"), **found}

    def beside(self, tokens: np.ndarray, held_out: Iterable[Batch], order: int) -> dict[str, dict[str, float]]:
        """Hidden tokens by how often each occurs, and how often after the true tokens before it (n-grams)."""
        counts = np.bincount(tokens, minlength=self.processor.vocab_size) + 1.0
        counts[self._special.numpy()] = 0
        grams, shares = NGram(tokens, self.processor.vocab_size, order), counts / counts.sum()
        found: dict[int, list[np.ndarray]] = {1: [], order: []}
        hidden: list[Tensor] = []
        for batch in held_out:
            ids, real = batch["input_ids"], batch["segment_ids"] > 0
            learned = self._hidden(ids, batch["segment_ids"], generator(0, "posed"))[real].numpy()
            whole = ids[real].numpy()
            hidden.append(ids[real][torch.from_numpy(learned)])
            found[order].append(-np.log(grams.probabilities(whole)[learned]))
            found[1] = found[1] if order == 1 else [*found[1], -np.log(shares[whole[learned]])]
        labels = torch.cat([*hidden, torch.zeros(0, dtype=torch.long)])
        return {f"{n}-gram": self._figures(np.concatenate(each), labels) for n, each in found.items() if each}

    def _figures(self, losses: np.ndarray, labels: Tensor) -> dict[str, float]:
        """The figures of hidden tokens alone, of a model that says how likely each is."""
        sums = self._sums(torch.from_numpy(losses), torch.zeros(()), labels)
        found = super().report({name: float(each) for name, each in sums.items()} | {"loss": float(losses.sum())})
        del found["token_accuracy"]  # which they do not say
        return {"hidden_loss": found.pop("loss"), **found}

    # --- answers ---------------------------------------------------------------------------------------

    def asking(self, row: Row) -> list[Example]:
        """The text with its sentinels, which are written as <extra_id_0>; a space before one belongs to what it hides.

        Raises:
            UserError: E146, nothing is to be filled.
        """
        *before, last = _SENTINEL.split(row["text"])
        if not before:
            raise UserError("E146", mask=self.markers[0])
        ids: list[int] = []
        for piece, name in zip(before[::2], before[1::2], strict=True):
            ids += [*self._piece(piece.removesuffix(" ")), self.processor.control[name]]
        return [{"input_ids": [*ids, *self._piece(last), self.processor.end_id]}]

    def _piece(self, text: str) -> list[int]:
        """The ids of text between sentinels, before which some tokenizers put a space of their own."""
        found: list[int] = self.processor.encode(text.strip(" ") if self.processor.spaced else text)
        return found

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """{"text": with its spans filled in, "spans": what fills each} of each row, by the likeliest tokens."""
        found = write(net, batch, self.start_id, self.processor.end_id, self.limit)
        rows = zip(batch["input_ids"].tolist(), batch["segment_ids"].tolist(), found, strict=True)
        return [
            self._filled([each for each, real in zip(ids, kept, strict=True) if real], said) for ids, kept, said in rows
        ]

    def _filled(self, ids: list[int], said: list[int]) -> Row:
        """The answer to a text (ids) from what was written for it."""
        known, spans = set(self._sentinels.tolist()), dict[int, list[int]]()
        span: list[int] = []
        for token in said:
            if token in known:
                span = spans.setdefault(token, [])
            else:
                span.append(token)
        asked = [spans.get(token, []) for token in ids if token in known]
        whole = [each for token in ids for each in (spans.get(token, []) if token in known else [token])]
        return {"text": self.processor.decode(whole), "spans": [self.processor.decode(each) for each in asked]}

    def asked(self, row: Row) -> Row:
        """The begin of the text with spans hidden, and what these are."""
        ids = self.processor.encode(row["text"])[: (self.context or LONGEST) - 1]
        free = torch.ones(1, len(ids), dtype=torch.bool)
        hidden = hiding.few_spans(
            free, free.long(), self.chosen["share"], self.chosen["span"], MOST, generator(0, "asked")
        )
        runs = [
            (kind, [ids[place] for place, _ in run])
            for kind, run in groupby(enumerate(hidden[0].tolist()), itemgetter(1))
        ]
        if not hidden.any():  # of less than two tokens
            runs = [(True, ids)]
        names = iter(self.markers)
        text = "".join(next(names) if kind else self.processor.decode(run) for kind, run in runs)
        return {"text": text, "spans": [self.processor.decode(run) for kind, run in runs if kind]}

    def score(self, predictions: Sequence[Row], references: Sequence[Row]) -> dict[str, float]:
        """Spans that are filled exactly, as a share of all."""
        both = zip(predictions, references, strict=True)
        found = [_same(*pair) for said, row in both for pair in zip(said["spans"], row["spans"], strict=False)]
        return {"spans_exact": sum(found) / max(len(found), 1)}

    def right(self, prediction: Row, reference: Row) -> bool | None:
        return all(map(_same, prediction["spans"], reference["spans"]))

    def told(self, answer: Row) -> str:
        return " · ".join(each.strip() for each in answer["spans"])


def _same(one: str, other: str) -> bool:
    return one.strip() == other.strip()


def _follows(hidden: Tensor, segments: Tensor) -> Tensor:
    """(B, T): whether the token before, of the same text, is hidden."""
    after = torch.zeros_like(hidden)
    after[:, 1:] = hidden[:, :-1] & (segments[:, 1:] == segments[:, :-1])
    return after
