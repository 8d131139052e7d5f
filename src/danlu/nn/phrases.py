"""Convolutions over the words of a text (Kim, 1408.5882): each channel looks for one phrase of a few tokens.

Shapes: B batch · T time · W width of the table · C channels of one length · D channels of all lengths
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.embed import Tokens, TokensConfig
from danlu.nn.linear import Linear


@dataclass(frozen=True)
class PhrasesConfig(TokensConfig):
    """A table of tokens, and channels for phrases of each length."""

    lengths: tuple[int, ...] = (1, 2, 3, 4, 5)  # tokens of a phrase
    channels: int = 128  # of each length

    @property
    def depth(self) -> int:
        """How many lengths of phrases there are."""
        return len(self.lengths)

    @property
    def dim(self) -> int:
        """Channels of all lengths."""
        return self.channels * len(self.lengths)

    @property
    def kept(self) -> int:
        """Numbers kept of one token for backward: its vector, what is found, and where the most is."""
        return self.width + sum(self.lengths) * self.channels + 3 * self.dim


class Phrases(Tokens):
    """The vectors of tokens, and how much what stands around each is like the phrases that the channels look for.

    A phrase reaches over the border of no text: `positions` say where one begins.
    """

    config: PhrasesConfig

    def __init__(self, config: PhrasesConfig) -> None:
        super().__init__(config, config.width)
        self.phrases = nn.ModuleList(
            Linear(config.width, length * config.channels, bias=False) for length in config.lengths
        )
        self.bias = nn.Parameter(torch.zeros(config.dim))

    def forward(self, ids: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """ids, positions (B, T) -> (B, T, D), no number below 0."""
        x = super().forward(ids, positions, types)
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
        found = [self._found(phrase(x), positions) for phrase in self.phrases]
        return F.relu(torch.cat(found, -1) + self.bias.to(x.dtype))

    def _found(self, likeness: Tensor, positions: Tensor) -> Tensor:
        """How like each token is to each place of the phrases of one length (B, T, length · C) -> (B, T, C).

        The sum over the places around a token, over sqrt(length): all lengths begin alike.
        """
        places = likeness.split(self.config.channels, -1)
        first = -(len(places) // 2)
        around = [_shifted(each, positions, first + place) for place, each in enumerate(places)]
        return torch.stack(around).sum(0) * len(places) ** -0.5


def _shifted(x: Tensor, positions: Tensor, by: int) -> Tensor:
    """(B, T, C) -> (B, T, C): what stands `by` tokens further on in the same text, 0 where that has ended."""
    if by == 0:
        return x
    if abs(by) >= x.shape[1]:
        return torch.zeros_like(x)
    ahead, behind = max(by, 0), max(-by, 0)
    there = F.pad(positions[:, ahead : positions.shape[1] - behind], (behind, ahead), value=-1)
    moved = F.pad(x[:, ahead : x.shape[1] - behind], (0, 0, behind, ahead))
    return moved * (there == positions + by)[..., None].to(x.dtype)
