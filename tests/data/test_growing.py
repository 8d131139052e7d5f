"""Pictures that grow: their sides, and what they look like when they are small."""

import pytest
import torch

from danlu.data import growing


@pytest.mark.parametrize(
    ("whole", "first", "sides"),
    [(32, 0.5, [16, 24, 32]), (28, 0.5, [16, 24, 28]), (224, 0.5, [112, 168, 224]), (96, 0.25, [24, 64, 96]),
     (32, 1.0, [32, 32, 32]), (8, 0.25, [8, 8, 8]), (12, 0.5, [8, 8, 12])],
)  # fmt: skip
def test_sides(whole: int, first: float, sides: list[int]) -> None:
    assert [growing.side(whole, first, at) for at in (0.0, 0.34, 0.67)] == sides
    assert [growing.side(whole, first, at) for at in (0.33, 0.66, 0.99)] == sides
    assert growing.side(whole, first, 1.0) == whole


def test_a_half_of_it_is_the_mean_of_what_it_stands_for() -> None:
    pixels = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    # Pillow's triangle over twice the distance: 1, 3, 3, 1 of eight in each direction, but for the edges
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    seen = growing.shrunk(pixels, 8)
    around = pixels.float()[:, :, 5:9, 7:11]
    assert seen.shape == (2, 3, 8, 8)
    torch.testing.assert_close(seen[:, :, 3, 4], (around * weights[:, None] * weights).sum((2, 3)))
    torch.testing.assert_close(growing.shrunk(torch.full((1, 1, 32, 32), 7.0), 24), torch.full((1, 1, 24, 24), 7.0))
    assert growing.shrunk(pixels, 16) is pixels
