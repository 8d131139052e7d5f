"""Average precision, beside an independent count of it."""

import numpy as np
import pytest

from danlu.metrics import detection


def overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = width * height if width > 0 and height > 0 else 0.0
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def plainly(pictures: list[tuple[list, list[float], list]], threshold: float) -> float:
    """Box by box in plain Python: the definition, with precision looked up at each recall."""
    hits: list[tuple[float, bool]] = []
    for boxes, scores, true in pictures:
        taken: set[int] = set()
        for place in sorted(range(len(boxes)), key=lambda p: -scores[p])[:100]:
            free = [(overlap(boxes[place], each), -index) for index, each in enumerate(true) if index not in taken]
            best, index = max(free, default=(0.0, 0))
            hits.append((scores[place], best >= threshold))
            taken |= {-index} if best >= threshold else set()
    hits.sort(key=lambda each: -each[0])
    total, right, curve = sum(len(true) for _, _, true in pictures), 0, []
    for seen, (_, hit) in enumerate(hits, 1):
        right += hit
        curve.append((right / total, right / seen))
    reached = [max((p for r, p in curve if r >= recall / 100), default=0.0) for recall in range(101)]
    return sum(reached) / 101


def figures(*tallies: detection.Tally) -> dict[str, float]:
    found = detection.sample(tallies, tallies).figures()
    return {name: float(each) for name, each in found.items() if not each.ndim}


def drawn(seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    random, made = np.random.Generator(np.random.PCG64(seed)), []
    for _ in range(6):
        corner = random.uniform(0, 50, (random.integers(0, 6), 2))
        true = np.concatenate([corner, corner + random.uniform(8, 30, corner.shape)], 1)
        near = np.repeat(true, 2, 0) + random.normal(0, 2.5, (2 * len(true), 4))
        corner = random.uniform(0, 50, (3, 2))
        found = np.concatenate([near, np.concatenate([corner, corner + 15], 1)])
        made.append((found, random.permutation(len(found) * 7)[: len(found)] / (len(found) * 7 + seed / 1000), true))
    return made


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_definition(seed: int) -> None:
    pictures, tally = drawn(seed), detection.Tally()
    for each in pictures:
        tally.add(*each)
    plain = [(a.tolist(), b.tolist(), c.tolist()) for a, b, c in pictures]
    wanted = [plainly(plain, float(threshold)) for threshold in detection.THRESHOLDS]
    np.testing.assert_allclose(tally.ranked().precisions(np.ones(len(pictures))), wanted, atol=1e-12)
    empty = detection.Tally()
    for _ in pictures:
        empty.add(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)))
    assert figures(tally, empty)["map"] == pytest.approx(np.mean(wanted))


def test_perfect_and_empty() -> None:
    true = np.array([[0.0, 0, 4, 4], [5, 5, 9, 9]])
    tally, nothing = detection.Tally(), detection.Tally()
    tally.add(true, np.array([0.9, 0.8]), true)
    nothing.add(np.zeros((0, 4)), np.zeros(0), true)
    assert figures(tally) == {"map_50": 1.0, "map": 1.0}
    assert figures(nothing) == {"map_50": 0.0, "map": 0.0}


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_drawn_pictures_are_those_of_the_pictures_written_down_so_often(seed: int) -> None:
    pictures, times = drawn(seed), np.array([2, 0, 1, 3, 0, 1])
    tally, again = detection.Tally(), detection.Tally()
    for each in pictures:
        tally.add(*each)
    for each in np.repeat(np.arange(6), times):
        again.add(*pictures[each])
    found = detection.sample([tally], [tally]).statistic(times[None].astype(float))
    for name, wanted in detection.sample([again], [again]).figures().items():
        np.testing.assert_allclose(found[name][0], wanted, atol=1e-12)


def test_intervals_hold_the_figure_and_shrink_with_more_pictures() -> None:
    pictures, width = [each for seed in range(20) for each in drawn(seed)], []
    for count in (20, 120):
        tally = detection.Tally()
        for each in pictures[:count]:
            tally.add(*each)
        made = detection.sample([tally], [tally])
        low, high = made.intervals(200)["map"]
        assert low < made.figures()["map"] < high
        width.append(high - low)
    assert width[1] < 0.7 * width[0]
