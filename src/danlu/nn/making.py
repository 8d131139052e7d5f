"""Networks that make pictures: one that finds noise in them, and two against each other.

Shapes: N pictures · C channels · S pixels on each side · Z numbers that a picture is made of
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from danlu.nn.adversarial import AdversarialConfig, Discriminator, Generator
from danlu.nn.denoiser import Denoiser
from danlu.nn.network import Network

if TYPE_CHECKING:
    from danlu.nn.cache import Cache
    from danlu.nn.heads import Label
    from danlu.nn.transformer import Transformer

Batch = dict[str, Tensor]


class Maker(Network):
    """A network that makes pictures: of another, which knew other classes or other numbers, it takes over what fits."""

    def adopt(self, other: Network) -> None:
        """Take over another's tensors of the same names and shapes."""
        own = self.state_dict()
        fits = {
            name: each for name, each in other.state_dict().items() if name in own and each.shape == own[name].shape
        }
        self.load_state_dict(own | fits)


class Denoising(Maker):
    """Finds the noise in pictures, each of which is one place of a batch.

    A batch holds pixel_values (N, C, S, S) with noise, and `level` (N,), how much of it: from 0, which none is, to 1;
    `classes` (N,) are the numbers of their classes, where it knows such.
    """

    embed: Denoiser  # type: ignore[assignment]

    @property
    def flops(self) -> float:
        """Operations of a forward pass over one picture."""
        return self.embed.config.flops

    @property
    def kept(self) -> int:
        """Numbers that are kept of one picture for backward."""
        return self.embed.config.kept

    @property
    def depth(self) -> int:
        return self.embed.config.depth

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """The noise (N, C, S, S)."""
        pixels = batch["pixel_values"]
        level = batch.get("level", torch.zeros(len(pixels), device=pixels.device))
        noise: Tensor = self.embed(pixels, level, batch.get("classes"))
        return noise


class Adversarial(Maker):
    """A generator of pictures beside a discriminator that tells them from real ones (1406.2661)."""

    def __init__(
        self, config: AdversarialConfig, core: Transformer, head: Label, generator: Generator, judge: Discriminator
    ) -> None:
        nn.Module.__init__(self)
        self.config, self.core, self.head = config, core, head
        self.generator, self.discriminator = generator, judge

    @property
    def embed(self) -> Discriminator:  # type: ignore[override]
        """What reads pictures."""
        return self.discriminator

    @property
    def dtype(self) -> torch.dtype:
        return self.generator.out.weight.dtype

    @property
    def flops(self) -> float:
        """Operations of forward passes, of which a step of both parts takes three times as many, over one picture."""
        return self.config.flops

    @property
    def kept(self) -> int:
        """Numbers that are kept of one picture for backward."""
        return self.config.kept

    @property
    def depth(self) -> int:
        return self.config.depth

    def forward(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """How real pixel_values (N, C, S, S) look, or what is made of `latent` (N, Z, 1, 1): logits (N, 1).

        `classes` (N,) are the numbers of their classes, where it knows such.
        """
        classes = batch.get("classes")
        seen = self.generator(batch["latent"], classes) if "latent" in batch else batch["pixel_values"]
        logits: Tensor = self.discriminator(seen, classes)[:, None]
        return logits
