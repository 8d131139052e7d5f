"""Pictures seen anew: as Pillow changes them, each by its own lot."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from danlu.data import augment
from danlu.data.augment import Augmentation, Lots

SIDE = 16


def pictures(count: int = 6, channels: int = 3) -> Tensor:
    random = np.random.Generator(np.random.PCG64(channels))
    rough = torch.from_numpy(random.integers(0, 256, (count, channels, 4, 4)).astype(np.float32))
    noise = torch.from_numpy(random.normal(0, 15, (count, channels, SIDE, SIDE)).astype(np.float32))
    return (F.interpolate(rough, size=(SIDE, SIDE), mode="bilinear") + noise).round().clamp(0, 255).to(torch.uint8)


def lots(count: int = 6) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(5)).integers(0, 2**62, count))


def pillow(pixels: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    made = [np.asarray(change(Image.fromarray(each.permute(1, 2, 0).numpy()))) for each in pixels]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float()


STRONG = torch.full((6,), 1.4)
SAME = {
    "brightness": (lambda x: augment.brightness(x, STRONG), lambda i: ImageEnhance.Brightness(i).enhance(1.4)),
    "contrast": (lambda x: augment.contrast(x, STRONG), lambda i: ImageEnhance.Contrast(i).enhance(1.4)),
    "saturation": (lambda x: augment.saturation(x, STRONG), lambda i: ImageEnhance.Color(i).enhance(1.4)),
    "sharpness": (lambda x: augment.sharpness(x, STRONG), lambda i: ImageEnhance.Sharpness(i).enhance(1.4)),
    "posterised": (lambda x: augment.posterised(x, torch.full((6,), 0.5)), lambda i: ImageOps.posterize(i, 6)),
    "solarised": (lambda x: augment.solarised(x, torch.full((6,), 0.5)), lambda i: ImageOps.solarize(i, 128)),
    "stretched": (augment.stretched, ImageOps.autocontrast),
}


@pytest.mark.parametrize("name", SAME)
def test_colours_are_changed_as_pillow_does(name: str) -> None:
    ours, theirs = SAME[name]
    found, wanted = ours(pictures().float()), pillow(pictures(), theirs)
    assert float((found - wanted).abs().max()) <= 2
    assert float((found - wanted).abs().mean()) < 0.25 * float((wanted - pictures().float()).abs().mean())


def test_equalised_pictures_have_as_many_pixels_of_every_brightness() -> None:
    found = augment.equalised(pictures().float())
    order = pictures().float().flatten(2).argsort(-1)
    sorted_ = found.flatten(2).gather(2, order)
    assert bool((sorted_.diff(dim=-1) >= 0).all()), "what was brighter stays so"
    even = torch.linspace(0, 255, SIDE * SIDE)
    assert float((sorted_ - even).abs().mean()) < 12


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -2), (-16, 5), (40, -3)])
def test_pictures_are_moved_by_whole_pixels(down: int, right: int) -> None:
    """Each by its own; one that is moved out of sight is what is behind it."""
    pixels = pictures(2)
    wide = F.pad(pixels, (64,) * 4, value=7)
    ways = [(down, right), (1, -right)]
    wanted = torch.stack([wide[n, :, 64 - y : 80 - y, 64 - x : 80 - x] for n, (y, x) in enumerate(ways)])
    assert torch.equal(augment.moved(pixels, *torch.tensor(ways).T, 7), wanted)


def test_a_quarter_turn_is_one() -> None:
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    found = augment.warped(pictures(1).float(), quarter, torch.zeros(1, 2))
    assert float((found - torch.rot90(pictures(1).float(), 1, (2, 3))).abs().max()) < 1e-2


WAYS = [
    Augmentation(crop=3), Augmentation(flip=True), Augmentation(colour=0.5), Augmentation(randaugment=2),
    Augmentation(erase=0.7), Augmentation(zoom=0.5),
    Augmentation(crop=2, flip=True, colour=0.3, randaugment=3, magnitude=30, erase=0.5),
]  # fmt: skip


ZOOMED = Augmentation(crop=3, flip=True, zoom=0.5)


@pytest.mark.parametrize("way", [Augmentation(crop=4), Augmentation(flip=True), Augmentation(zoom=0.5), ZOOMED])
def test_masks_are_moved_as_their_pictures_are(way: Augmentation) -> None:
    """A picture of large areas of a class each: wherever a pixel is still that of an area, so is that of its mask."""
    random = np.random.Generator(np.random.PCG64(9))
    masks = torch.from_numpy(random.integers(0, 5, (24, 2, 2))).repeat_interleave(8, 1).repeat_interleave(8, 2)
    pixels, moves = (masks[:, None] * 40 + 40).to(torch.uint8), way.moves(Lots(lots(24)))
    seen, found = moves(pixels).float()[:, 0], moves.of_masks(masks.to(torch.uint8), 255)
    assert found.dtype == torch.uint8
    assert set(found.unique().tolist()) <= {0, 1, 2, 3, 4, 255}, "no class is made up"
    wanted = torch.where(found == 255, 0.0, found.float() * 40 + 40)
    assert float((seen - wanted).abs().le(0.5).float().mean()) > (0.999 if not way.zoom else 0.7)
    assert float((seen - wanted).abs().median()) < 0.5
    assert not torch.equal(found, masks.to(torch.uint8))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_changed_by_its_lot_alone(way: Augmentation, channels: int) -> None:
    """Whatever it is in a batch with; another lot changes it in another way."""
    pixels, drawn = pictures(32, channels), lots(32)
    whole = way(pixels, Lots(drawn)).float()
    order = torch.arange(31, -1, -1)
    parts = [way(pixels[order[a:b]], Lots(drawn[order[a:b]])).float() for a, b in ((0, 5), (5, 32))]
    torch.testing.assert_close(torch.cat(parts)[order], whole, rtol=0, atol=1e-3)
    assert not torch.equal(way(pixels, Lots(drawn + 1)).float(), whole)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 255 + 1e-3


def test_draws_are_even_and_apart() -> None:
    drawn = Lots(torch.arange(20_000))
    first, second = drawn(), drawn()
    for each in (first, second):
        counts = torch.histc(each, 10, 0, 1)
        assert float((counts / 2000 - 1).abs().max()) < 0.1
    assert abs(float(torch.corrcoef(torch.stack((first, second)))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack((first[1:], first[:-1])))[0, 1])) < 0.03
    assert sorted(set(drawn.whole(-2, 2).tolist())) == [-2, -1, 0, 1, 2]


def test_as_many_are_erased_as_asked_for() -> None:
    pixels = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    found = Augmentation(erase=0.3)(pixels, Lots(torch.arange(4000)))
    assert abs(float((found.amax((1, 2, 3)) > 0).float().mean()) - 0.3) < 0.03


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.3)])
def test_shares_of_two_pictures_are_those_of_their_pixels(mixup: float, cutmix: float) -> None:
    """White mixed with black: how bright it is tells how much of it is its own."""
    pixels = torch.zeros(500, 1, SIDE, SIDE, dtype=torch.uint8)
    pixels[::2] = 255
    found, own = augment.mixed(pixels, mixup, cutmix, Lots(torch.arange(500)))
    bright = found.mean((1, 2, 3)) / 255
    torch.testing.assert_close(bright[::2], own[::2], rtol=0, atol=1e-5)
    torch.testing.assert_close(bright[1::2], 1 - own[1::2], rtol=0, atol=1e-5)
    assert abs(float((own < 1).float().mean()) - (mixup + cutmix)) < 0.1
