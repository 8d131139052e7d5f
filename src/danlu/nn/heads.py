"""From the stack's states to answers.

Shapes: B batch · T time · D width · W width of the output table · V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.linear import Linear
from danlu.nn.mlp import ACTIVATIONS
from danlu.nn.norm import Norm


@dataclass(frozen=True)
class VocabularyConfig:
    """Logits over the vocabulary."""

    tied: bool = True  # the output table is the embedding's
    bias: str = "none"  # none | all
    transform: str = "none"  # none, or the activation of a dense layer and norm before the table (BERT)
    scale: float = 1.0  # of the states (T5 1.0: dim ** -0.5)
    norm_eps: float = 1e-12


class Vocabulary(nn.Module):
    """logits = prepare(hidden) · weightᵀ + bias. A tied weight stays the embedding's: it is not a parameter here."""

    def __init__(self, config: VocabularyConfig, dim: int, table: nn.Embedding) -> None:
        super().__init__()
        vocab, width = table.weight.shape
        self.config = config
        self.output = None if config.tied else Linear(width, vocab, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab)) if config.bias == "all" else None
        self.dense = Linear(dim, width) if config.transform != "none" else None
        self.norm = Norm(width, "layer", config.norm_eps) if config.transform != "none" else None
        self.tie(table)

    def tie(self, table: nn.Module) -> None:
        """Use `table` for the output when tied; a tuple hides the module, so that the state holds it once."""
        self._table = (table,)

    @property
    def weight(self) -> Tensor:
        """(V, W), tied or not."""
        weight = (self._table[0] if self.output is None else self.output).weight
        assert isinstance(weight, Tensor)
        return weight

    def prepare(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., W): all that comes before the table, for losses that never form all logits."""
        if self.dense is not None and self.norm is not None:
            hidden = self.norm(ACTIVATIONS[self.config.transform](self.dense(hidden)))
        return hidden if self.config.scale == 1.0 else hidden * self.config.scale

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        states = self.prepare(hidden)
        logits = F.linear(states, self.weight) if self.output is None else self.output(states)
        return logits if self.bias is None else logits + self.bias.to(logits.dtype)
