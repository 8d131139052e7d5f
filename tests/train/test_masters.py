"""The sums of gradients: of parameters of any shape, in any number of pieces, and of those that are asked alone."""

import pytest
import torch
from torch import nn

from danlu.train import precision
from danlu.train.precision import Masters


class Odd(nn.Module):
    """Parameters of several shapes, one of them a single number, one laid out otherwise, one that no loss sees."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.matrix = nn.Parameter(torch.randn(7, 5, generator=generator))
        self.turned = nn.Parameter(torch.randn(5, 7, generator=generator).mT)
        self.unseen = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.matrix.to(x.dtype)).square().sum() + (x @ self.turned.to(x.dtype)).sum()) * self.scale


def summed(net: Odd, dtype: torch.dtype, awake: list[str], passes: int = 3) -> Masters:
    masters = Masters(net, dtype)
    masters.wake(awake)
    for place in range(passes):
        with masters.collecting():
            net(torch.full((2, 7), 1.0 + place, dtype=dtype)).float().backward()
    return masters


@pytest.mark.parametrize("piece", [1, 8, 2**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_those_of_autograd_in_fp32(dtype: torch.dtype, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_PIECE", piece)
    names = ["scale", "matrix", "turned", "unseen"]
    masters, other = summed(Odd(), dtype, names), Odd()
    for p in other.parameters():
        p.data = p.data.to(dtype) if p.ndim >= 2 else p.data
    wanted = {name: torch.zeros(p.shape) for name, p in other.named_parameters() if name != "unseen"}
    for place in range(3):
        other.zero_grad()
        other(torch.full((2, 7), 1.0 + place, dtype=dtype)).float().backward()
        for name, total in wanted.items():
            total += other.get_parameter(name).grad.float()  # type: ignore[union-attr]
    assert masters.gradients.keys() == wanted.keys()
    assert all(torch.equal(masters.gradients[name], total) for name, total in wanted.items())
    assert all(p.grad is None for p in masters.working.values())


def test_what_sleeps_has_none_and_no_hook_stays() -> None:
    net = Odd()
    masters = summed(net, torch.float32, ["matrix"])
    assert list(masters.gradients) == ["matrix"]
    before = masters.gradients["matrix"].clone()
    net(torch.ones(2, 7)).backward()
    assert torch.equal(masters.gradients["matrix"], before), "outside, a gradient is the network's"
    assert net.matrix.grad is not None
