"""Learn to tell tokens that a small generator put in from those that stood there, as ELECTRA does."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu.models import contest
from danlu.models.architecture import Architecture
from danlu.nn.losses import IGNORE, chunked_cross_entropy, token_losses, wide
from danlu.tasks.masked_language_modeling import MaskedLanguageModeling
from danlu.tasks.task import Answer, Batch, Example, Row, place_of

CHUNK = 512  # places of which all logits are held at a time


class ReplacedTokenDetection(MaskedLanguageModeling):
    """Replaced token detection (2003.10555): a generator fills in hidden tokens, and of every token is asked whether
    it is the one that stood there. Both learn, each from its own loss; what the generator drew carries no gradient.

    A batch is that of masked language modelling, and `chance` (B, T) in [0, 1), from which the generator draws.
    """

    arch = "electra"
    sized = True
    stock = known_as = ()  # type: ignore[assignment]
    options = {
        "share": (0.15, [0.01, 0.9], "share of the tokens that are hidden"),
        "hide": ("tokens", ("tokens", "words", "spans"), "what is hidden as a whole"),
        "generator": (0.34, [0.1, 1.0], "width of the generator, as a share of the model's"),
        "weight": (50.0, [0.0, 1000.0], "weight of the loss of replaced tokens, beside the generator's"),
    }
    paired = False

    def shaped(self, architecture: Architecture) -> Architecture:
        return contest.opened(architecture, self.chosen["generator"])

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        hidden = super().corrupt(batch, generator)
        return {**hidden, "chance": torch.rand(batch["input_ids"].shape, generator=generator)}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return super().counts(batch) | {"replaced": (batch["segment_ids"] > 0).sum()}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        states, labels = self._counted(net.proposed(batch), batch)
        states = net.words.prepare(states)
        found = chunked_cross_entropy(states, net.words.weight, labels, bias=net.words.bias, ignore=None)
        logits, replaced, real = self._told(net, batch, states)
        doubt = F.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="none")
        return {"loss": found, "replaced": self.chosen["weight"] * (doubt * real).sum()}

    def _told(self, net: Any, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Once the generator has drawn: logits (B, T) that tokens are replaced, which are, and which are no padding."""
        shown, labels = batch["input_ids"], batch["labels"]
        places = batch["counted"] if "counted" in batch else (labels != IGNORE).flatten().nonzero().flatten()
        drawn = torch.cat([*self._drawn(net.words, states.detach(), batch["chance"].flatten()[places])])
        filled = shown.flatten().scatter(0, places, drawn).view_as(shown)
        logits = net({**batch, "input_ids": filled}).squeeze(-1)
        replaced = (labels != IGNORE) & (filled != labels)
        return wide(logits), replaced, batch.get("segment_ids", torch.ones_like(shown)) > 0

    @torch.no_grad()
    def _drawn(self, words: Any, states: Tensor, chances: Tensor) -> Iterator[Tensor]:
        """The generator's tokens (N,) at places with states (N, G), drawn by chances (N,)."""
        yield states.new_zeros(0, dtype=torch.long)
        for rows, chance in zip(states.split(CHUNK), chances.split(CHUNK), strict=True):
            logits = F.linear(rows, words.weight.to(rows.dtype), words.bias.to(rows.dtype))
            sums = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1).cumsum(-1)
            wanted = chance.to(sums.dtype)[:, None] * sums[:, -1:]
            yield torch.searchsorted(sums, wanted, right=True).squeeze(1).clamp(max=sums.shape[1] - 1)

    # --- figures ---------------------------------------------------------------------------------------

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        states, labels = self._counted(net.proposed(batch), batch)
        states = net.words.prepare(states)
        losses, hits = token_losses(states, net.words.weight, labels, bias=net.words.bias)
        logits, replaced, real = self._told(net, batch, states)
        doubt = F.binary_cross_entropy_with_logits(logits.double(), replaced.double(), reduction="none")
        said = (logits > 0) & real
        return {
            "loss": losses.cpu().double().sum(),
            "tokens": torch.tensor(float(len(labels))),
            "correct": hits.sum(),
            "bytes": torch.zeros(()),
            "doubt": (doubt * real).sum(),
            "real": real.sum(),
            "replaced": replaced.sum(),
            "said": said.sum(),
            "found": (said & replaced).sum(),
        }

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        """The loss that is trained; the generator's figures; precision and recall of what is called replaced."""
        metrics = super().report(sums)
        metrics["loss"] += self.chosen["weight"] * float(sums["doubt"]) / max(float(sums["real"]), 1.0)
        found, said, replaced = (float(sums[name]) for name in ("found", "said", "replaced"))
        return metrics | {
            "replaced_precision": found / said if said else 0.0,
            "replaced_recall": found / replaced if replaced else 0.0,
        }

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """Of each row how likely each of its tokens is a replaced one."""
        with torch.no_grad():
            shares = net(batch).squeeze(-1).float().sigmoid()
        real = batch.get("segment_ids", torch.ones_like(batch["input_ids"])) > 0
        names = [self.processor.show(ids[kept].tolist()) for ids, kept in zip(batch["input_ids"], real, strict=True)]
        rows = zip(names, shares, real, strict=True)
        return [{"tokens": shown, "replaced": share[kept].tolist()} for shown, share, kept in rows]

    def asking(self, row: Row) -> list[Example]:
        """The begin of a text that is longer than the context."""
        return [{"input_ids": self.processor.joined(row["text"], limit=self.context)[0]}]

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """The logit that a token is a replaced one: of all of the text, the one of which that is likeliest."""
        place_of(wanted, (), 0)
        ids = batch["input_ids"][0]
        with torch.no_grad():
            logits = net(batch)[0, :, 0].masked_fill(torch.isin(ids, self._special.to(ids.device)), float("-inf"))
        place = int(logits.argmax())

        def figures(seen: Batch) -> tuple[Tensor, Tensor]:
            found = net(seen)[:, place, 0]
            return found, found.sigmoid()

        return Answer(self.processor.show([int(ids[place])])[0].strip(), figures)
