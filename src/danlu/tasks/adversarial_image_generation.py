"""Learn to make pictures that another network, which learns beside, cannot tell from real ones."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from danlu.data.augment import Lots
from danlu.errors import UserError
from danlu.models.architecture import Architecture
from danlu.nn.adversarial import AdversarialConfig
from danlu.nn.losses import wide
from danlu.tasks.answers.picture import NewPictures
from danlu.tasks.task import Batch


class AdversarialImageGeneration(NewPictures):
    """A GAN (1406.2661), with the loss of its generator that does not saturate (section 3 there).

    For pixel_values (N, C, S, S) a batch holds `latent` (N, Z, 1, 1), of which as many others are made, of the classes
    `classes` (N,) where those are learned; both networks are told them (1411.1784).
    """

    arch = "dcgan"
    parts = ("discriminator", "generator")
    adversarial = True
    step_tokens = 64
    # DCGAN's (1511.06434), without a decay of the rate; its parts go around what they seek: 1806.04498
    habits = {"optimizer": "adam", "lr": 2e-4, "beta1": 0.5, "beta2": 0.999, "schedule": "constant", "dropout": 0.0,
              "average": 0.999}  # fmt: skip
    options = {
        **NewPictures.options,
        "latent": (64, [1, 1024], "numbers that a picture is made of"),
    }

    @property
    def choices(self) -> tuple[str, float]:
        return "4", 4.0  # who tells nothing apart has a loss of ln 2 for a real picture and for one that was made

    def shaped(self, architecture: Architecture) -> Architecture:
        if not isinstance(architecture.embed, AdversarialConfig):
            raise UserError("E309")
        embed = replace(architecture.embed, latent=self.chosen["latent"], classes=len(self.classes))
        return replace(architecture, embed=embed)

    def chanced(self, batch: Batch, lots: Lots) -> Batch:
        """What a picture is made of, as often as there are real ones."""
        return batch | {"latent": lots.normal(self.chosen["latent"])[:, :, None, None]}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        """That of the discriminator, to tell real from made, or of the generator, to have its own taken for real."""
        classes = batch.get("classes")
        if part == "generator":
            made = net.generator(batch["latent"], classes)
            return {"loss": F.softplus(-wide(net.discriminator(made, classes))).sum()}
        with torch.no_grad():
            made = net.generator(batch["latent"], classes)
        return {"loss": _judged(*self._verdicts(net, batch, made)).sum()}

    def _verdicts(self, net: Any, batch: Batch, made: Tensor) -> tuple[Tensor, Tensor]:
        """How real the pictures look (N,), and those that were made (N,)."""
        classes = batch.get("classes")
        return wide(net.discriminator(batch["pixel_values"], classes)), wide(net.discriminator(made, classes))

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """The discriminator's loss, and how many verdicts are right."""
        real, made = self._verdicts(net, batch, net.generator(batch["latent"], batch.get("classes")))
        right = (real > 0).sum() + (made < 0).sum()
        count = torch.tensor(len(real))
        return {"loss": _judged(real, made).double().sum(), "right": right, "pictures": count}

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        count = max(float(sums["pictures"]), 1.0)
        return {"loss": float(sums["loss"]) / count, "told_apart": float(sums["right"]) / (2 * count)}

    def begins(self, net: Any) -> tuple[int, ...]:
        return net.config.latent, 1, 1

    def made(self, net: Any, noise: Tensor, classes: Tensor | None, wish: Mapping[str, float]) -> Tensor:
        found: Tensor = net.generator(noise, classes)
        return found


def _judged(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss on pairs (N,): real pictures should have high logits, made ones low."""
    return F.softplus(-real) + F.softplus(made)
