"""Noise and the way back: schedules by their formulas, and pictures whose best denoiser is known in closed form."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from danlu.models import dcgan, ddpm
from danlu.models.architecture import build
from danlu.nn.diffusion import descended, noised, signal, usual


def test_the_line_is_that_of_the_paper() -> None:
    left = signal(1000, "linear").numpy()
    assert left == pytest.approx(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), rel=1e-12)
    assert signal(100, "linear")[-1] < 1e-4, "fewer levels end in noise, too"


def test_the_cosine_is_that_of_the_paper() -> None:
    places = np.arange(1001) / 1000
    wanted = np.cos((places + 0.008) / 1.008 * math.pi / 2) ** 2
    left = signal(1000, "cosine").numpy()
    assert left[:-1] == pytest.approx((wanted / wanted[0])[1:-1], rel=1e-9)
    assert 0 < left[-1] < left[-2] * 1.1e-3
    assert (np.diff(left) < 0).all()


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_way_back_ends_among_pictures_of_a_normal_distribution(schedule: str) -> None:
    """Of pixels with mean m and deviation s, what of x is noise is known: its expectation is linear in x."""
    mean, std = 0.2, 0.15
    left = signal(1000, schedule)

    def found(x: Tensor, level: Tensor) -> Tensor:
        share = left[(level * 1000).round().long()][:, None, None, None]
        return (1 - share).sqrt() * (x - share.sqrt() * mean) / (share * std**2 + 1 - share)

    noise = torch.randn(400, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = descended(found, noise, left, 250)
    assert float(made.mean()) == pytest.approx(mean, abs=0.01)
    assert float(made.std()) == pytest.approx(std, rel=0.05)
    assert float(torch.corrcoef(torch.stack((made.flatten(), noise.flatten())))[0, 1]) > 0.99, "no other noise comes in"
    once = descended(found, noise, left, 1)
    assert float(once.std()) < std / 2, "one step leads to the mean"


def test_levels_are_drawn_by_the_logarithm_of_their_odds() -> None:
    """The distribution in closed form: P(level < k) = Phi(logit(k / T))."""
    levels = usual(1000)
    for k in (50, 269, 500, 731, 950):
        share = 0.5 * (1 + math.erf(math.log(k / (1000 - k)) / math.sqrt(2)))
        assert float((levels < k).double().mean()) == pytest.approx(share, abs=0.002)
    assert (int(levels.min()), int(levels.max())) == (35, 964)
    assert usual(1).tolist() == [0]


def test_a_noised_picture_has_its_share() -> None:
    pixels = torch.ones(3, 1, 40, 40)
    noise = torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(2))
    seen = noised(pixels, noise, torch.tensor([1.0, 0.25, 0.0]))
    assert seen[0].equal(pixels[0])
    assert seen[2].equal(noise[2])
    assert float(seen[1].mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("image", "channels"), [(28, 1), (32, 3), (12, 1), (13, 3)])
def test_a_u_net_gives_back_the_shape_and_states_its_operations(image: int, channels: int) -> None:
    net = build(ddpm.preset(0, 1, 2, image=image, channels=channels, width=16), torch.Generator().manual_seed(1))
    pixels = torch.randn(2, channels, image, image)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert net({"pixel_values": pixels, "level": torch.tensor([0.1, 0.9])}).shape == pixels.shape
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert convolutions / 2 == pytest.approx(net.flops, rel=1e-9)
    with pytest.raises(ValueError, match=f"{image} pixels"):
        net({"pixel_values": pixels[..., 1:]})


def test_a_u_net_is_told_how_much_noise_there_is() -> None:
    net = build(ddpm.preset(0, 1, 1, image=12, channels=1, width=16), torch.Generator().manual_seed(1))
    pixels = torch.randn(1, 1, 12, 12).expand(2, -1, -1, -1)
    few, many = net({"pixel_values": pixels, "level": torch.tensor([0.1, 0.9])})
    assert float((few - many).detach().abs().max()) > 0.01


@pytest.mark.parametrize(("image", "channels", "depth"), [(28, 1, 1), (32, 3, 2), (12, 1, 1), (13, 3, 1)])
def test_a_gan_makes_what_it_judges(image: int, channels: int, depth: int) -> None:
    net = build(dcgan.preset(0, 1, depth, image=image, channels=channels, width=8), torch.Generator().manual_seed(1))
    latent = torch.randn(2, 64, 1, 1)
    made = net.generator(latent)
    assert made.shape == (2, channels, image, image)
    assert float(made.detach().abs().max()) <= 1
    assert net({"pixel_values": made}).equal(net({"latent": latent}))
    parts = {name.split(".")[0] for name, _ in net.named_parameters()}
    assert parts == {"generator", "discriminator"}
