"""Learn to make pictures, by finding the noise in them: new ones are what pure noise leads to, step by step."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from danlu.data.augment import Lots
from danlu.errors import UserError
from danlu.models.architecture import Architecture
from danlu.nn.denoiser import DenoiserConfig
from danlu.nn.diffusion import descended, noised, signal, usual
from danlu.nn.losses import wide
from danlu.tasks.answers.picture import NewPictures
from danlu.tasks.task import Batch

_UNTOLD = 0.1  # of the pictures whose class is known
_MOST_STEPS = 250  # that a wish may take, unless the usual ones are more


class ImageGeneration(NewPictures):
    """Diffusion (DDPM, 2006.11239), and the way back in few steps (DDIM, 2010.02502).

    Of pixel_values (N, C, S, S) with `noise`, the network finds that noise, `level` (N,) says how much there is. Where
    classes are learned, one of ten is not told: new pictures are led to their class by what that changes (2207.12598).
    """

    arch = "ddpm"
    step_tokens = 128
    habits = {"dropout": 0.0, "average": 0.999}
    options = {
        **NewPictures.options,
        "schedule": ("cosine", ("cosine", "linear"), "how the noise grows from level to level"),
        "levels": (1000, [10, 10_000], "levels of noise, from nearly none to nothing else"),
        "steps": (50, [1, 10_000], "levels that a new picture passes on its way from noise"),
        "guidance": (2.0, [0.0, 20.0], "how far new pictures are led to their class, where such are learned; 1: not"),
    }

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """Steps are limited: whoever asks a server is not alone."""
        most = max(_MOST_STEPS, self.chosen["steps"])
        return super().limits | {"steps": (1, min(most, self.chosen["levels"])), "guidance": (0.0, 20.0)}

    @property
    def wishes(self) -> dict[str, Any]:
        """Those of new pictures, and how they are led there."""
        told = ("steps", "guidance") if self.classes else ("steps",)
        return super().wishes | {name: self.chosen[name] for name in told}

    @property
    def choices(self) -> tuple[str, float]:
        return "e", 2.718281828459045  # who finds no noise has a loss of 1, the logarithm of that

    def shaped(self, architecture: Architecture) -> Architecture:
        if not isinstance(architecture.embed, DenoiserConfig):
            raise UserError("E309")
        return replace(architecture, embed=replace(architecture.embed, classes=len(self.classes)))

    @property
    def left(self) -> Tensor:
        """The share of the variance that is the picture's at each level (T,)."""
        return signal(self.chosen["levels"], self.chosen["schedule"])

    def chanced(self, batch: Batch, lots: Lots) -> Batch:
        """A level, and noise, for each picture."""
        clean, levels = batch["pixel_values"], self.chosen["levels"]
        places = usual(levels)[lots.whole(0, levels - 1)]
        noise = lots.normal(clean[0].numel() if len(clean) else 0).view_as(clean)
        seen = noised(clean, noise, self.left[places].float())
        if "classes" in batch:
            batch |= {"classes": torch.where(lots() < _UNTOLD, len(self.classes), batch["classes"])}
        return batch | {"pixel_values": seen, "noise": noise, "level": places.float() / levels}

    def _errors(self, net: nn.Module, batch: Batch) -> Tensor:
        """The mean square error over the pixels of each picture (N,)."""
        found = wide(net(batch))
        return (found - batch["noise"].to(found.dtype)).square().flatten(1).mean(1)

    def loss(self, net: nn.Module, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        return {"loss": self._errors(net, batch).sum()}

    def measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        errors = self._errors(net, batch)
        return {"loss": errors.double().sum(), "pictures": torch.tensor(len(errors))}

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / max(float(sums["pictures"]), 1.0)}

    def begins(self, net: Any) -> tuple[int, ...]:
        config = net.embed.config
        return config.channels, config.image, config.image

    def made(self, net: Any, noise: Tensor, classes: Tensor | None, wish: Mapping[str, float]) -> Tensor:
        share = wish.get("guidance", 1.0)

        def found(pixels: Tensor, level: Tensor) -> Tensor:
            seen = {"pixel_values": pixels, "level": level}
            told: Tensor = net(seen if classes is None else seen | {"classes": classes})
            return told if classes is None or share == 1 else told + (share - 1) * (told - net(seen))

        return descended(found, noise, self.left, int(wish["steps"]))
