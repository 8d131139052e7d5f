"""Networks of convolutions against the plain formulas in float64, and how their numbers lie in memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

from danlu import models
from danlu.models.architecture import build
from danlu.nn.convolutions import Convolutions, ConvolutionsConfig, GroupNorm, Pointwise, Residual, Standardized
from danlu.nn.groups import group_norm
from danlu.nn.network import Pictures
from danlu.randomness import generator


def network(kind: str, channels: int) -> Convolutions:
    made = Convolutions(ConvolutionsConfig(16, channels, 16, 2, 2, kind)).double()
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.copy_(torch.randn(p.shape, generator=drawn, dtype=p.dtype) * 0.2 + float(name.endswith("norm.weight")))
    return made


def normed(x: Tensor, norm: GroupNorm) -> Tensor:
    """The formula: mean and variance over the channels of a group and all their places."""
    groups = x.unflatten(1, (8, -1))
    mean, var = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), correction=0, keepdim=True)
    unit = ((groups - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
    return unit * norm.weight[:, None, None] + norm.bias[:, None, None]


def standardized(conv: nn.Conv2d) -> Tensor:
    """The formula: mean 0, variance 2 over the numbers of a filter."""
    filters = conv.weight.flatten(1)
    count = filters.shape[1]
    unit = (filters - filters.mean(1, keepdim=True)) / (
        filters.var(1, correction=0, keepdim=True) + 1e-5 / count
    ).sqrt()
    return (unit * (2 / count) ** 0.5).view_as(conv.weight)


def plain(made: Convolutions, x: Tensor) -> Tensor:
    """Block by block, out of place."""
    for block, layer in zip(made.blocks, made.config.layers, strict=True):
        if isinstance(block, Residual):
            stride = 2 if layer.halves else 1
            y = normed(F.conv2d(x, standardized(block.conv), stride=stride, padding=1), block.norm).relu()
            y = normed(F.conv2d(y, standardized(block.second), padding=1), block.last)
            around = x if block.around is None else F.conv2d(x, block.around.weight, stride=stride)
            x = (around + y).relu()
        else:
            x = F.max_pool2d(x, 2) if layer.halves else x
            x = normed(F.conv2d(x, standardized(block.conv), padding=1), block.norm).relu()  # type: ignore[union-attr, arg-type]
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_values_and_gradients_are_those_of_the_formulas(kind: str, channels: int) -> None:
    made = network(kind, channels)
    seen = torch.randn(3, channels, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = seen.clone().requires_grad_()
    kept = [x, *made.parameters()]
    wanted = plain(made, x)
    grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.autograd.grad(wanted, kept, grad)
    found = made(x)
    assert float((found - wanted).detach().abs().max()) <= 1e-12
    for one, other in zip(torch.autograd.grad(found, kept, grad), expected, strict=True):
        assert float((one - other).abs().max()) <= 1e-10 * float(other.abs().max())


def test_filters_are_those_of_bit_but_for_their_length() -> None:
    """Big Transfer (1912.11370) in transformers: norms behind them take out the length."""
    ours, theirs = Standardized(6, 10), WeightStandardizedConv2d(6, 10, 3, padding="SAME")
    theirs.weight, x = ours.weight, torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(3))
    torch.nn.init.normal_(ours.weight, 0.3, 2.0, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(ours(x) * (54 / 2) ** 0.5, theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_channels_lie_innermost_on_a_processor(kind: str, channels: int) -> None:
    """Else every convolution would turn what it reads and writes; weights stay as files hold them."""
    made = network(kind, channels).float()
    for stage in made.stages(torch.zeros(2, channels, 16, 16)):
        assert stage.is_contiguous(memory_format=torch.channels_last)
    assert all(p.is_contiguous() for p in made.parameters())


def test_resnet_18_is_three_sizes() -> None:
    """11.2 million weights and 0.56 thousand million products for a picture of 32 pixels, as torch counts them."""
    shape = models.preset("resnet", 0, 1, 2, image=32, width=64, stages=4)
    made = build(shape, generator(1, "init"))
    assert isinstance(made, Pictures)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made.embed(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == made.flops
    assert made.flops / 2 == pytest.approx(0.555e9, rel=0.005)
    assert sum(p.numel() for p in made.parameters() if isinstance(p, nn.Parameter)) == pytest.approx(11.17e6, rel=0.002)


@pytest.mark.parametrize("side", [6, 32])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels", [8, 24, 64])
def test_norms_of_few_channels_are_the_formula(channels: int, dtype: torch.dtype, side: int) -> None:
    """Of 1, 3 and 8 channels in a group, below and above the pixels from which torch's forward kernel is taken."""
    drawn = torch.Generator().manual_seed(3)
    made, shape = GroupNorm(channels), (2, channels, side, side)
    made.weight.data, made.bias.data = (torch.rand(channels, generator=drawn) + 0.5 for _ in range(2))
    made = made.double() if dtype == torch.float64 else made
    x = (torch.randn(shape, generator=drawn) * 2 + 1).to(dtype).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(shape, generator=drawn).to(dtype)
    assert group_norm(x.requires_grad_(), made.groups, made.weight, made.bias, 1e-5).grad_fn.name() == "NarrowBackward"
    found = torch.autograd.grad(y := made(x), [x, made.weight, made.bias], grad)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    exact = GroupNorm(channels).double()
    exact.load_state_dict(made.state_dict())
    wide = x.detach().double().requires_grad_()
    expected = torch.autograd.grad(wanted := normed(wide, exact), [wide, exact.weight, exact.bias], grad.double())
    limit = 1e-12 if dtype == torch.float64 else 4e-3  # half a step of bf16 is 2e-3
    for one, other in zip((y, *found), (wanted, *expected), strict=True):
        assert float((one.detach().double() - other.detach()).norm() / other.detach().norm()) <= limit


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("laid", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_of_one_pixel(laid: torch.memory_format, stride: int) -> None:
    """In fp32, with 8 channels innermost and steps of two pixels: oneDNN's own ends the process here."""
    drawn = torch.Generator().manual_seed(4)
    made, x = Pointwise(8, 16, stride), torch.randn(4, 8, 48, 48, generator=drawn).contiguous(memory_format=laid)
    wide, weight = (each.detach().double().contiguous().requires_grad_() for each in (x, made.weight))
    wanted = F.conv2d(wide, weight, stride=stride)
    found = made(x.requires_grad_())
    grad = torch.randn(wanted.shape, generator=drawn)
    expected = torch.autograd.grad(wanted, [wide, weight], grad.double())
    for one, other in zip(
        (found, *torch.autograd.grad(found, [x, made.weight], grad)), (wanted, *expected), strict=True
    ):
        assert float((one.double() - other).detach().norm() / other.detach().norm()) <= 1e-5
