"""Learn to predict the next token of text."""

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from danlu import models
from danlu.modalities.text import Text
from danlu.models.architecture import Architecture
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, chunked_cross_entropy, token_losses, wide
from danlu.tasks.task import Answer, Batch, Example, Row, Task, weighed


class LanguageModeling(Task):
    """Causal language modelling: input_ids (B, T), labels (B, T) = the token after each input, -100 = not counted."""

    inputs = {"text": Text}
    outputs = {"text": Text}
    unsupervised = True
    ahead = 1
    known_as = ("text-generation",)
    stock = ("ForCausalLM", "LMHeadModel")

    @cached_property
    def _token_bytes(self) -> Tensor:
        """(V,) bytes that each token stands for."""
        return torch.as_tensor(self.processor.token_bytes())

    def encode(self, row: Row) -> Example:
        end = self.processor.end_id
        return {"input_ids": [end, *self.processor.encode(row["text"]), end]}

    def head(self, architecture: Architecture) -> HeadConfig:
        return models.word_head(architecture)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (batch["labels"] != IGNORE).sum()}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        (hidden, labels), head = self._counted(net.hidden(batch), batch), net.head
        return {"loss": chunked_cross_entropy(head.prepare(hidden), head.weight, labels, bias=head.bias, ignore=None)}

    def _counted(self, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """States (N, D) and labels (N,) of the positions that count."""
        hidden, labels = states.flatten(0, 1), batch["labels"].flatten()
        if not labels.is_cpu:  # whoever sent the batch knows the places
            counted = batch.get("counted")
            return (hidden, labels) if counted is None else (hidden[counted], labels[counted])
        learned = labels != IGNORE
        return (hidden, labels) if bool(learned.all()) else (hidden[learned], labels[learned])

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        (hidden, labels), head = self._counted(net.hidden(batch), batch), net.head
        losses, hits = token_losses(head.prepare(hidden), head.weight, labels, bias=head.bias)
        return {
            "loss": losses.cpu().double().sum(),  # not every GPU knows fp64
            "tokens": torch.tensor(float(len(labels))),
            "correct": hits.sum(),
            "bytes": self._token_bytes.to(labels.device)[labels].sum(),
        }

    def report(self, sums: dict[str, float]) -> dict[str, float]:
        loss = sums["loss"] / sums["tokens"] if sums.get("tokens") else math.nan  # nothing measured is no zero
        metrics = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700)),
            "token_accuracy": sums["correct"] / max(sums["tokens"], 1),
        }
        if sums["bytes"]:
            metrics["bits_per_byte"] = sums["loss"] / math.log(2) / sums["bytes"]
        return metrics

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """The most likely next tokens of each row of input_ids."""
        with torch.no_grad():
            logits = net(batch)[:, -1].float()
        values, ids = logits.softmax(-1).topk(5)
        return [{"next": self._shown(*each)["likely"]} for each in zip(ids, values, strict=True)]

    def asking(self, row: Row) -> list[Example]:
        """A text to go on with."""
        return [{"input_ids": [self.processor.end_id, *self.processor.encode(row["text"])]}]

    def answer(self, net: Any, batch: Batch, wanted: str = "") -> Answer:
        """The logit of the next token: the likeliest, or the first of the text that is named."""
        return self._at(net, net.head, batch, -1, wanted)

    def _at(self, net: Any, head: Any, batch: Batch, place: int, wanted: str) -> Answer:
        """The logit of a token in a place."""

        def logits(seen: Batch) -> Tensor:
            return wide(head(net.hidden(seen)[:, place]))

        with torch.no_grad():
            token = next(iter(self.processor.encode(wanted)), int(logits(batch)[0].argmax()))
        return Answer(self.processor.show([token])[0], lambda seen: weighed(logits(seen), token))

    def _shown(self, ids: Tensor, shares: Tensor) -> Row:
        pairs = zip(ids.tolist(), shares.tolist(), strict=True)
        return {"likely": [{"text": self.processor.decode([index]), "score": share} for index, share in pairs]}
