"""Learn to see by painting what is hidden of pictures, as masked autoencoders do (MAE)."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danlu import pixels
from danlu.data import shapes
from danlu.data.augment import Augmentation, Lots
from danlu.errors import UserError
from danlu.modalities.image import Image
from danlu.models import vit_mae
from danlu.models.architecture import Architecture
from danlu.models.folder import CONFIG, read_config
from danlu.nn import hiding
from danlu.nn.heads import HeadConfig
from danlu.nn.losses import IGNORE, wide
from danlu.nn.painting import PixelsConfig, joined, wanted
from danlu.nn.stems import PatchesConfig
from danlu.tasks.answers.seen import Seen
from danlu.tasks.task import Batch, Example, Row

_GREY = 128  # of what is hidden, where it is shown
_ODD = 0x5851F42D4C957F2D  # what the bytes of a picture are multiplied by, one after another


class MaskedImageModeling(Seen):
    """Masked image modelling (2111.06377): pixel_values uint8 (B, C, S, S); lot (B, 1, 1), a number of the epoch and
    the picture, by which patches are hidden. The loss is the squared error of pixels, the mean over the hidden
    patches of a picture, summed over pictures.

    A look at held-out pictures hides of each the same at every time: a function of its pixels.
    """

    outputs = {"painted": Image}
    shape = "picture"
    unsupervised = True
    arch = "vit"
    archs = ("vit",)
    judged = 16  # answers are pictures
    step_tokens = 128
    stock = ("ViTMAEForPreTraining",)
    options = {
        "share": (0.75, [0.05, 0.95], "share of the patches that are hidden"),
        "decoder": (2, [1, 16], "layers of the decoder, which is for pretraining alone"),
        "target": ("patch", ("patch", "picture"), "by what pixels are standardised that are to be found"),
        **Seen.options,
    }

    @classmethod
    def stated(cls, folder: Path) -> dict[str, Any]:
        head = vit_mae.from_hf(read_config(folder / CONFIG)).head
        assert isinstance(head, PixelsConfig)
        return {"share": head.share, "decoder": head.core.layers, "target": head.target}

    @property
    def choices(self) -> tuple[str, float]:
        """Who paints each patch in its mean has a loss of 1, the logarithm of e."""
        return "e", math.e

    def head(self, architecture: Architecture) -> HeadConfig:
        chosen = {name: self.chosen[name] for name in ("share", "target")}
        known, embed = architecture.head, architecture.embed
        if isinstance(known, PixelsConfig) and known.core.layers == self.chosen["decoder"]:
            return PixelsConfig(known.core, known.patches, known.numbers, **chosen)
        if not isinstance(embed, PatchesConfig) or not embed.tokens or not architecture.core.heads:
            raise UserError("E351")
        return vit_mae.decoder(architecture, self.chosen["decoder"], **chosen)

    def encode(self, row: Row) -> Example:
        return {"input_ids": [0], "pixel_values": self.processor.encode(row["image"]), "labels": [IGNORE]}

    # --- what is hidden --------------------------------------------------------------------------------

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        if "lots" not in batch:
            return self.posed(batch)
        lots, seen = Lots(batch["lots"]), {name: each for name, each in batch.items() if name != "lots"}
        augmented = Augmentation(crop=self.chosen["crop"], flip=self.chosen["flip"])
        return seen | {"pixel_values": augmented(batch["pixel_values"], lots), "lot": batch["lots"][:, None, None]}

    def posed(self, batch: Batch) -> Batch:
        return batch | {"lot": _lots(batch["pixel_values"])[:, None, None]}

    # --- losses ----------------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Pictures: of each as many patches are hidden."""
        return {"loss": torch.tensor(len(batch["pixel_values"]))}

    def loss(self, net: Any, batch: Batch, part: str = "model") -> dict[str, Tensor]:
        errors, _, hidden = self._painted(net, batch)
        return {"loss": (errors * hidden).sum() / max(1, net.head.config.hides)}

    def _painted(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of each patch (N, P): the squared error, that of its mean in every pixel, and 1 where it is hidden."""
        config, scaled = net.head.config, self.processor.scaled(batch)
        shown = self._shown(config, batch)
        meant, *_ = wanted(scaled["pixel_values"], net.embed.config.patch, config.target)
        errors = (wide(net({**scaled, "shown": shown})) - meant).square().mean(-1)
        plain = (meant - meant.mean(-1, keepdim=True)).square().mean(-1)
        return errors, plain, torch.ones_like(errors).scatter(1, shown, 0.0)

    def _shown(self, config: PixelsConfig, batch: Batch) -> Tensor:
        """The places of the patches that the encoder sees (N, V)."""
        lots = batch["lot"].flatten() if "lot" in batch else _lots(batch["pixel_values"])
        return hiding.patches(lots, config.patches, config.seen)

    # --- figures ---------------------------------------------------------------------------------------

    def measure(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """Errors of the hidden patches, and those that their true means would have."""
        errors, plain, hidden = (each.double() for each in self._painted(net, batch))
        return {"loss": (errors * hidden).sum(), "plain": (plain * hidden).sum(), "patches": hidden.sum()}

    def report(self, sums: dict[str, Any]) -> dict[str, float]:
        """The loss that is trained; and how much less it is than that of each patch's own mean."""
        loss, plain = float(sums["loss"]), float(sums["plain"])
        patches = max(float(sums["patches"]), 1.0)
        return {"loss": loss / patches, "variance_painted": 1 - loss / plain if plain else 0.0}

    def predict(self, net: Any, batch: Batch) -> list[Row]:
        """{"seen", "painted"}: the picture with what was hidden in grey, and with that painted; its share; the loss.

        A patch is painted in its own mean and deviation, where these are not learned.
        """
        config, side, scaled = net.head.config, net.embed.config.patch, self.processor.scaled(batch)
        shown, given = self._shown(config, batch), scaled["pixel_values"]
        meant, mean, deviation = wanted(given, side, config.target)
        with torch.no_grad():
            found = wide(net({**scaled, "shown": shown}))
        hidden = torch.ones_like(found[..., :1]).scatter(1, shown[..., None], 0.0)
        errors = ((found - meant).square().mean(-1) * hidden[..., 0]).sum(1) / max(1, config.hides)
        painted = joined(torch.where(hidden > 0, found, meant) * deviation + mean, given, side)
        grey = joined(hidden.expand_as(meant), torch.zeros_like(given), side)
        plain = batch["pixel_values"].float()
        rows = zip(self._shades(painted), (plain + (_GREY - plain) * grey).round(), errors.tolist(), strict=True)
        share = config.hides / config.patches
        return [{"painted": self._file(each), "seen": self._file(seen), "hidden": share, "loss": loss}
                for each, seen, loss in rows]  # fmt: skip

    def _shades(self, scaled: Tensor) -> Tensor:
        """Standardised pixels -> from 0 to 255."""
        mean, std = (torch.tensor(each, device=scaled.device)[:, None, None]
                     for each in (self.processor.mean, self.processor.std))  # fmt: skip
        return ((scaled * std + mean) * 255).round().clamp(0, 255)

    def _file(self, shades: Tensor) -> str:
        decoded: str = self.processor.decode(shades.byte().cpu().numpy())
        return decoded

    def drawn(self, answer: Row, row: Row) -> dict[str, bytes]:
        return {name: pixels.read(answer[name]) for name in ("painted", "seen")}

    def error(self, prediction: Row, reference: Row) -> Row | None:
        """Every picture is painted with some error."""
        said = {"wanted": "", "found": self.told(prediction), "weight": prediction["loss"]}
        return {"given": shapes.plain(reference), **said, "image": prediction["painted"]}

    def told(self, answer: Row) -> str:
        return f"{answer['loss']:.3f}" if "loss" in answer else ""


def _lots(seen: Tensor) -> Tensor:
    """A number for each picture (N,), by its pixels uint8 (N, C, S, S): the same whatever stands beside it."""
    values = seen.flatten(1).long() + 1
    factors = torch.arange(1, 2 * values.shape[1], 2, device=seen.device) * _ODD
    return (values * factors).sum(1)
