"""Two networks against each other, all of convolutions: one makes pictures of noise, one tells them from real ones.

DCGAN (1511.06434), with a norm over groups of channels in the place of the batch's, so that pictures do not see each
other and a step can be cut.
Shapes: B pictures · C channels · H pixels on each side · Z numbers that a picture is made of · W channels · S pixels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.nn.convolutions import GroupNorm, Layer
from danlu.nn.dropout import Dropout

_SLOPE = 0.2  # of what is below 0, in the network that judges (1511.06434, section 3)
_SMALLEST = 4  # pixels on each side that the first convolution sees, at least
_MOST = 4  # times that a picture is halved, at most


@dataclass(frozen=True)
class AdversarialConfig:
    """Both networks: the picture is halved as often as it can be, and channels double each time."""

    image: int  # pixels on each side
    channels: int  # of the picture
    width: int  # channels at the picture's own size
    depth: int = 1  # convolutions at each size
    latent: int = 64  # numbers that a picture is made of
    classes: int = 0  # of pictures, which both are told

    @property
    def halvings(self) -> int:
        """How often the picture is halved."""
        found = 0
        while found < _MOST and not (self.image >> found) % 2 and self.image >> (found + 1) >= _SMALLEST:
            found += 1
        return found

    @property
    def dim(self) -> int:
        """Channels where the picture is smallest."""
        return self.width * 2**self.halvings

    @property
    def judging(self) -> list[Layer]:
        """The convolutions of the network that judges, from the picture on."""
        found, before = list[Layer](), self.channels
        for stage in range(self.halvings + 1):
            for place in range(self.depth):
                found.append(Layer(before, self.width * 2**stage, self.image >> stage, stage > 0 and not place))
                before = self.width * 2**stage
        return found

    @property
    def making(self) -> list[Layer]:
        """Those of the network that makes, to the picture: the same from the other end, doubling where those halve."""
        found, before = list[Layer](), self.dim
        for stage in reversed(range(self.halvings)):
            for place in range(self.depth):
                found.append(Layer(before, self.width * 2**stage, self.image >> stage, not place))
                before = self.width * 2**stage
        return found

    @property
    def base(self) -> int:
        """Pixels on each side where the picture is smallest."""
        return self.image >> self.halvings

    @property
    def flops(self) -> float:
        """Operations of forward passes, a third of a step's: one picture made, and judged beside a real one, twice."""
        made = sum(2.0 * e.inputs * (4 if e.halves else 9) * e.outputs * e.side**2 for e in self.making)
        judged = sum(2.0 * e.inputs * (16 if e.halves else 9) * e.outputs * e.side**2 for e in self.judging)
        return 4 / 3 * made + 3 * judged

    @property
    def kept(self) -> int:
        """Numbers kept of one picture made and two judged."""
        made, judged = (
            sum((each.inputs + 3 * each.outputs) * each.side**2 for each in layers)
            for layers in (self.making, self.judging)
        )
        return made + 2 * judged


class Judging(nn.Module):
    """dropout(leaky_relu(norm(conv(x)))), with steps of two pixels where the picture is halved."""

    def __init__(self, layer: Layer, *, normed: bool, dropout: float) -> None:
        super().__init__()
        size, stride = (4, 2) if layer.halves else (3, 1)
        self.conv = nn.Conv2d(layer.inputs, layer.outputs, size, stride, padding=1, bias=False)
        self.norm = GroupNorm(layer.outputs) if normed else None
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, outputs, S or S / 2, same)."""
        y = self.conv(x)
        return self.dropout(F.leaky_relu(y if self.norm is None else self.norm(y), _SLOPE))


class Discriminator(nn.Module):
    """A picture -> how real it looks: a logit, to which its class adds one where that is told (1802.05637)."""

    def __init__(self, config: AdversarialConfig, dropout: float = 0.0) -> None:
        super().__init__()
        layers = list(enumerate(config.judging))  # the first sees pixels as they are
        self.blocks = nn.ModuleList(Judging(each, normed=bool(place), dropout=dropout) for place, each in layers)
        self.out = nn.Conv2d(config.dim, 1 + config.classes, config.base, bias=False)

    def forward(self, pixels: Tensor, classes: Tensor | None = None) -> Tensor:
        """(B, C, H, H), and the numbers of their classes (B,) -> (B,)."""
        x = pixels.to(self.out.weight.dtype)
        for block in self.blocks:
            x = block(x)
        logits = self.out(x).flatten(1)
        own = 0.0 if classes is None else logits.gather(1, 1 + classes[:, None])[:, 0]
        found: Tensor = logits[:, 0] + own
        return found


class Making(nn.Module):
    """relu(norm(conv(x))), with a convolution that doubles the picture where one of judging halves it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        kind, size, stride = (nn.ConvTranspose2d, 4, 2) if layer.halves else (nn.Conv2d, 3, 1)
        self.conv = kind(layer.inputs, layer.outputs, size, stride, padding=1, bias=False)
        self.norm = GroupNorm(layer.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, outputs, S or 2 S, same)."""
        return F.relu(self.norm(self.conv(x)))


class Generator(nn.Module):
    """Noise, and a class where that is told -> a picture, from -1 to 1."""

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        self.classes = config.classes
        self.first = nn.ConvTranspose2d(config.latent + config.classes, config.dim, config.base, bias=False)
        self.norm = GroupNorm(config.dim)
        self.blocks = nn.ModuleList(Making(each) for each in config.making)
        self.out = nn.Conv2d(config.width, config.channels, 3, padding=1, bias=False)

    def forward(self, latent: Tensor, classes: Tensor | None = None) -> Tensor:
        """(B, Z, 1, 1), and the numbers of classes (B,) -> (B, C, H, H)."""
        if self.classes:
            told = latent.new_zeros(len(latent), self.classes) if classes is None else F.one_hot(classes, self.classes)
            latent = torch.cat((latent, told[:, :, None, None].to(latent.dtype)), 1)
        x = F.relu(self.norm(self.first(latent.to(self.out.weight.dtype))))
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.out(x))
