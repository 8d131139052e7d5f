"""The best path against all paths."""

import itertools

import pytest
import torch

from danlu.nn.chain import best_path

LABELS = 3


def enumerated(scores: torch.Tensor, steps: torch.Tensor, first: torch.Tensor) -> list[int]:
    def total(path: tuple[int, ...]) -> float:
        moved = sum(float(steps[a, b]) for a, b in itertools.pairwise(path))
        return float(first[path[0]]) + moved + sum(float(scores[place, label]) for place, label in enumerate(path))

    return list(max(itertools.product(range(LABELS), repeat=len(scores)), key=total))


@pytest.mark.parametrize("forbidden", [False, True])
def test_it_is_the_best_of_all(forbidden: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([1, 2, 5, 4])
    scores = torch.randn(4, 5, LABELS, generator=generator, dtype=torch.float64)
    steps = torch.randn(LABELS, LABELS, generator=generator, dtype=torch.float64)
    first = torch.randn(LABELS, generator=generator, dtype=torch.float64)
    if forbidden:
        steps[0, 1] = steps[2, 2] = first[2] = float("-inf")
    found = best_path(scores, steps, first, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert found[row, :length].tolist() == enumerated(scores[row, :length], steps, first)
        assert not found[row, length:].any()
