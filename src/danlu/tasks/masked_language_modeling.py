"""Learn to fill in words that are hidden in text, as BERT does."""

from typing import Any

import torch
from torch import Tensor

from danlu.nn.losses import chunked_cross_entropy, token_losses
from danlu.randomness import generator
from danlu.tasks.language_modeling import IGNORE, LanguageModeling
from danlu.tasks.task import Batch, Example, Row

HIDDEN = 0.15  # share of the tokens that are to be found (Devlin et al. 2019)
MASKED, RANDOM = 0.8, 0.1  # of these, what stands in their place: the mask, another token; else the token itself


class MaskedLanguageModeling(LanguageModeling):
    """Masked language modelling (1810.04805): labels (B, T) hold the tokens that are hidden, anew in each epoch."""

    arch = "bert"
    ahead = 0

    def encode(self, row: Row) -> Example:
        return {"input_ids": self.processor.joined(row["text"])[0]}

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        ids = batch["input_ids"]
        special = torch.tensor(sorted(self.processor.control.values()))
        free = (batch["segment_ids"] > 0) & ~torch.isin(ids, special)
        hidden = free & (torch.rand(ids.shape, generator=generator) < HIDDEN)
        fate = torch.rand(ids.shape, generator=generator)
        other = torch.randint(self.processor.vocab_size, ids.shape, generator=generator)
        seen = torch.where(fate < MASKED, self.processor.mask_id, torch.where(fate < MASKED + RANDOM, other, ids))
        return {**batch, "input_ids": torch.where(hidden, seen, ids), "labels": torch.where(hidden, ids, IGNORE)}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        hidden, labels = self._positions(net, batch)
        states = net.head.prepare(hidden)
        return {"loss": chunked_cross_entropy(states, net.head.weight, labels, bias=net.head.bias, ignore=None)}

    def posed(self, batch: Batch) -> Batch:
        return self.corrupt(batch, generator(0, "posed"))

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        hidden, labels = self._positions(net, batch)
        losses, hits = token_losses(net.head.prepare(hidden), net.head.weight, labels, bias=net.head.bias)
        counted = torch.tensor(float(len(labels)))
        return {"loss": losses.cpu().double().sum(), "tokens": counted, "correct": hits.sum(), "bytes": torch.zeros(())}

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """The most likely tokens in each place that is masked, row after row."""
        with torch.no_grad():
            logits = net(batch)[batch["input_ids"] == self.processor.mask_id].float()
        values, ids = logits.softmax(-1).topk(5)
        return [self._shown(*each) for each in zip(ids, values, strict=True)]
