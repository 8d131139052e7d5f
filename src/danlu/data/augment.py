"""Pictures seen anew in each epoch: all draws for a picture come from its own lot, so that a batch's cut changes none.

What moves the pixels of a picture moves those of its mask, too; masks hold numbers, of which none is made up.

Shapes: N pictures · C channels · S pixels on each side; pixels go from 0 to 255
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

_FULL = 255.0
_GOLDEN, _FIRST, _SECOND = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)
_STRONGEST = 30  # magnitude of RandAugment (1909.13719)
_PART = 0.3  # of a box, that must be left for it to be one still
_AREA, _RATIO = (0.02, 1 / 3), (0.3, 3.3)  # of what is erased: share of the picture, height over width (1708.04896)


class Lots:
    """Uniform draws for each picture: the k-th is a function of its lot and k alone (SplitMix64)."""

    def __init__(self, lots: Tensor) -> None:
        self.lots, self.drawn = lots.numpy().astype(np.uint64), 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(N,) fp32 in [low, high)."""
        return low + (high - low) * self._next(1)[:, 0]

    def normal(self, count: int) -> Tensor:
        """(N, count) fp32 of mean 0 and variance 1, two from each pair of draws (Box & Muller 1958)."""
        half = -(-count // 2)
        draws = self._next(2 * half)
        length, angle = (-2 * (1 - draws[:, :half]).log()).sqrt(), 2 * math.pi * draws[:, half:]
        return torch.cat((length * angle.cos(), length * angle.sin()), 1)[:, :count]

    def _next(self, count: int) -> Tensor:
        """(N, count) fp32 in [0, 1)."""
        numbers = np.arange(self.drawn + 1, self.drawn + 1 + count, dtype=np.uint64)
        self.drawn += count
        with np.errstate(over="ignore"):
            mixed = self.lots[:, None] + numbers * _GOLDEN
            mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
            mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
        return torch.from_numpy(((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / 2**24)

    def whole(self, low: int, high: int) -> Tensor:
        """(N,) int64 from low to high, both among them."""
        return (self(low, high + 1)).floor().long().clamp(low, high)


@dataclass(frozen=True)
class Augmentation:
    """What is done to a picture, in this order; what is 0 is not done."""

    crop: int = 0  # pixels by which it is moved at most, in each direction; what comes in is black
    flip: bool = False  # left and right, half of the time
    colour: float = 0.0  # by how much brightness, contrast and saturation change at most
    randaugment: int = 0  # operations drawn for each (1909.13719)
    magnitude: int = 9  # of them, up to 30
    erase: float = 0.0  # share of the pictures of which a rectangle is lost (1708.04896)
    zoom: float = 0.0  # by what share it becomes larger or smaller at most

    def __call__(self, pixels: Tensor, lots: Lots) -> Tensor:
        """uint8 (N, C, S, S) -> uint8 or fp32, the same shape."""
        return self.coloured(self.moves(lots)(pixels), lots)

    def moves(self, lots: Lots) -> Moves:
        """Where the pixels of each picture go."""
        by = (lots.whole(-self.crop, self.crop), lots.whole(-self.crop, self.crop)) if self.crop else None
        mirrored = lots() < 0.5 if self.flip else None
        return Moves(by, mirrored, self._sizes(lots) if self.zoom else None)

    def _sizes(self, lots: Lots) -> Tensor:
        """How many times as large each picture becomes (N,): as often larger as smaller."""
        most = math.log1p(self.zoom)
        return torch.exp(lots(-most, most))

    def coloured(self, pixels: Tensor, lots: Lots) -> Tensor:
        """What is done to pixels (N, C, S, S) where they are; RandAugment alone moves them once more."""
        if self.colour:
            for change in (brightness, contrast, saturation):
                pixels = change(pixels.float(), lots(1 - self.colour, 1 + self.colour))
        for _ in range(self.randaugment):
            pixels = randomly(pixels.float(), self.magnitude / _STRONGEST, lots)
        return erased(pixels, self.erase, lots) if self.erase else pixels


@dataclass(frozen=True)
class Moves:
    """Where the pixels of N pictures go, those of their masks like them; None is nowhere else."""

    by: tuple[Tensor, Tensor] | None  # pixels down and to the right (N,)
    mirrored: Tensor | None  # left and right, bool (N,)
    zoom: Tensor | None  # how many times as large (N,)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, S, S) -> the same, or fp32 where they are zoomed; what comes in is black."""
        pixels = self._whole(pixels, 0)
        return pixels if self.zoom is None else zoomed(pixels.float(), self.zoom, "bilinear")

    def of_masks(self, masks: Tensor, void: int) -> Tensor:
        """Numbers uint8 (N, S, S) -> the same; what comes in is `void`."""
        found = self._whole(masks[:, None], void)
        if self.zoom is None:
            return found[:, 0]
        return (zoomed(found.float() - void, self.zoom, "nearest") + void).round().to(masks.dtype)[:, 0]

    def of_boxes(self, boxes: Tensor, side: int) -> Tensor:
        """Boxes (N, M, 5) in pictures of this side, the fifth -1 of none: what is left of them inside."""
        corners, kinds = boxes[..., :4].clone(), boxes[..., 4]
        if self.by:
            corners += torch.stack((self.by[1], self.by[0]) * 2, -1)[:, None]
        if self.mirrored is not None:
            turned = torch.stack((side - corners[..., 2], corners[..., 1], side - corners[..., 0], corners[..., 3]), -1)
            corners = torch.where(self.mirrored[:, None, None], turned, corners)
        if self.zoom is not None:
            corners = (corners - side / 2) * self.zoom[:, None, None] + side / 2
        inside = corners.clamp(0, side)
        left, whole = ((each[..., 2:] - each[..., :2]).prod(-1) for each in (inside, corners))
        kinds = torch.where(left < _PART * whole, -1.0, kinds)
        return torch.cat((inside, kinds[..., None]), -1)

    def _whole(self, pixels: Tensor, behind: int) -> Tensor:
        """By whole pixels."""
        if self.by:
            pixels = moved(pixels, *self.by, behind)
        return pixels if self.mirrored is None else torch.where(_wide(self.mirrored), pixels.flip(-1), pixels)


def _wide(each: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return each[:, None, None, None]


def moved(pixels: Tensor, down: Tensor, right: Tensor, behind: int = 0) -> Tensor:
    """Each picture by whole pixels (N,) down and to the right, black behind it, or another value."""
    side, known = pixels.shape[-1], pixels.numpy()
    below, beside = (each.clamp(-side, side).numpy() for each in (down, right))
    edge = int(max(abs(below).max(initial=0), abs(beside).max(initial=0)))
    wide = np.full((*known.shape[:2], side + 2 * edge, side + 2 * edge), behind, known.dtype)
    wide[..., edge : edge + side, edge : edge + side] = known
    seen = sliding_window_view(wide, (side, side), (2, 3))  # without a copy: rows of pixels are copied, not numbers
    return torch.from_numpy(seen[np.arange(len(known)), :, edge - below, edge - beside])


def erased(pixels: Tensor, share: float, lots: Lots) -> Tensor:
    """A share of the pictures without a rectangle, where they are grey."""
    side = pixels.shape[-1]
    area, ratio = lots(*_AREA), torch.exp(lots(math.log(_RATIO[0]), math.log(_RATIO[1])))
    inside = _rectangle(side, (area * ratio).sqrt(), (area / ratio).sqrt(), lots) & _wide(lots() < share)
    return torch.where(inside, torch.full_like(pixels, round(_FULL / 2)), pixels)


def _rectangle(side: int, height: Tensor, width: Tensor, lots: Lots) -> Tensor:
    """(N, 1, S, S) bool: one of this height and width, as shares of the picture, wherever it fits."""
    places = torch.arange(side)[None]
    spans = []
    for share in (height, width):
        size = (share * side).round().long().clamp(1, side)
        begin = (lots() * (side - size + 1)).floor().long()
        spans.append((places >= begin[:, None]) & (places < (begin + size)[:, None]))
    return (spans[0][:, :, None] & spans[1][:, None])[:, None]


# --- colours ------------------------------------------------------------------------------------------------


def _grey(pixels: Tensor) -> Tensor:
    """(N, 1, S, S)."""
    if pixels.shape[1] == 1:
        return pixels
    return (pixels * torch.tensor(_GREY, dtype=pixels.dtype)[:, None, None]).sum(1, keepdim=True)


def _between(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """From `other` (0) to the picture (1) and beyond."""
    return (pixels - other).mul_(_wide(factor)).add_(other).clamp_(0, _FULL)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return _between(pixels, torch.zeros(()), factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    return _between(pixels, _grey(pixels).mean((1, 2, 3), keepdim=True), factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    return _between(pixels, _grey(pixels), factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """From a picture smoothed by 3 x 3 pixels, the middle counting five times, as Pillow has it."""
    kernel = torch.ones(3, 3)
    kernel[1, 1] = 5
    channels = pixels.shape[1]
    smooth = pixels.clone()  # the outermost pixels stay
    smooth[..., 1:-1, 1:-1] = F.conv2d(pixels, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)
    return _between(pixels, smooth, factor)


def posterised(pixels: Tensor, strength: Tensor) -> Tensor:
    """The upper 8 to 4 bits alone."""
    step = 2.0 ** _wide((strength * 4).round())
    return (pixels / step).floor() * step


def solarised(pixels: Tensor, strength: Tensor) -> Tensor:
    """The brightest turned dark."""
    return torch.where(pixels >= _wide((1 - strength) * 256), _FULL - pixels, pixels)


def stretched(pixels: Tensor) -> Tensor:
    """Each channel from 0 to 255."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    return torch.where(high > low, (pixels - low) * (_FULL / (high - low).clamp(min=1e-6)), pixels)


def equalised(pixels: Tensor) -> Tensor:
    """Each channel with as many pixels of every brightness."""
    values = pixels.round().long().flatten(2)
    counts = torch.zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones(values.shape))
    below = counts.cumsum(2)
    least = below.gather(2, values.amin(2, keepdim=True))
    whole = float(values.shape[-1])
    table = ((below - least) / (whole - least).clamp(min=1) * _FULL).round().clamp(0, _FULL)
    return table.gather(2, values).view_as(pixels)


# --- shapes -------------------------------------------------------------------------------------------------


def zoomed(pixels: Tensor, times: Tensor, way: str) -> Tensor:
    """Each picture so many times as large (N,), 0 around it; `way`: bilinear, or nearest."""
    still = torch.zeros(len(pixels), 2)
    return warped(pixels, torch.eye(2) / times[:, None, None], still, way)


def warped(pixels: Tensor, matrix: Tensor, shift: Tensor, way: str = "bilinear") -> Tensor:
    """Each picture seen through a matrix (N, 2, 2) and a shift (N, 2) around its middle, black around it."""
    theta = torch.cat((matrix, shift[..., None]), -1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode=way, padding_mode="zeros", align_corners=False)


def _matrix(n: int, **cells: Tensor) -> Tensor:
    made = torch.eye(2).repeat(n, 1, 1)
    for name, value in cells.items():
        made[:, int(name[1]), int(name[2])] = value
    return made


def _turn(pixels: Tensor, strength: Tensor) -> Tensor:
    angle = strength * math.radians(30)
    still = torch.zeros(len(pixels), 2)
    cells = {"c00": angle.cos(), "c01": -angle.sin(), "c10": angle.sin(), "c11": angle.cos()}
    return warped(pixels, _matrix(len(pixels), **cells), still)


def _shear(cell: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda pixels, strength: warped(
        pixels, _matrix(len(pixels), **{cell: strength * 0.3}), torch.zeros(len(pixels), 2)
    )


def _shift(axis: int) -> Callable[[Tensor, Tensor], Tensor]:
    def shift(pixels: Tensor, strength: Tensor) -> Tensor:
        by = torch.zeros(len(pixels), 2)
        by[:, axis] = strength * 0.9  # of half a picture
        return warped(pixels, _matrix(len(pixels)), by)

    return shift


_Change = Callable[[Tensor, Tensor], Tensor]
_SIGNED: tuple[_Change, ...] = (  # of a strength from -1 to 1
    _turn, _shear("c01"), _shear("c10"), _shift(0), _shift(1),
    *((lambda pixels, strength, change=change: change(pixels, 1 + 0.9 * strength))
      for change in (brightness, contrast, saturation, sharpness)),
)  # fmt: skip
_UNSIGNED: tuple[_Change, ...] = (  # from 0 to 1
    lambda pixels, strength: pixels, posterised, solarised,
    lambda pixels, strength: stretched(pixels), lambda pixels, strength: equalised(pixels),
)  # fmt: skip


def randomly(pixels: Tensor, strength: float, lots: Lots) -> Tensor:
    """One of RandAugment's fourteen operations for each picture, in either direction where it has two."""
    chosen, sign = lots.whole(0, len(_SIGNED) + len(_UNSIGNED) - 1), torch.where(lots() < 0.5, -1.0, 1.0)
    found = pixels.clone()
    for number, change in enumerate((*_SIGNED, *_UNSIGNED)):
        if len(here := (chosen == number).nonzero().flatten()):
            given = sign[here] * strength if number < len(_SIGNED) else torch.full((len(here),), strength)
            found[here] = change(pixels[here], given).round()  # as Pillow: what follows may be a step
    return found


# --- two pictures in one ------------------------------------------------------------------------------------


def mixed(pixels: Tensor, mixup: float, cutmix: float, lots: Lots) -> tuple[Tensor, Tensor]:
    """Pictures, a share of them mixed with the next of the batch, and how much of each is its own (N,).

    mixup (1710.09412) adds them up; cutmix (1905.04899) puts a rectangle of one into the other. How much is left is
    uniform: Beta(1, 1), as both have it on CIFAR.
    """
    other, kept, which = pixels.roll(-1, 0).float(), lots(), lots()
    side = (1 - kept).sqrt()
    inside = _rectangle(pixels.shape[-1], side, side, lots)
    cut = (which >= mixup) & (which < mixup + cutmix)
    own = torch.where(cut, 1 - inside.float().mean((1, 2, 3)), torch.where(which < mixup, kept, torch.ones(())))
    blended = pixels * _wide(own) + other * _wide(1 - own)
    return torch.where(_wide(cut), torch.where(inside, other, pixels.float()), blended), own
