"""Entities of tags against cases counted by hand, and against seqeval where it is installed."""

import numpy as np
import pytest

from danlu.metrics.entities import Entity, counted, entities, is_tag, sample, summary, table, tags


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("O B-PER I-PER O", [("PER", 1, 3)]),
        ("B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        ("O I-PER I-PER O", [("PER", 1, 3)]),  # I- without B- begins (IOB1, and mistakes)
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),  # the type changes inside
        ("I-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER O I-PER", [("PER", 0, 1), ("PER", 2, 3)]),
        ("B-PER I-PER E-PER S-LOC", [("PER", 0, 3), ("LOC", 3, 4)]),
        ("B-PER M-PER M-PER E-PER B-PER E-PER", [("PER", 0, 4), ("PER", 4, 6)]),
        ("B-PER L-PER U-LOC", [("PER", 0, 2), ("LOC", 2, 3)]),
        ("E-PER E-PER", [("PER", 0, 1), ("PER", 1, 2)]),  # each ends what nobody began
        ("B-PER E-PER I-PER", [("PER", 0, 2), ("PER", 2, 3)]),
        ("S-PER I-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-a-b I-a-b", [("a-b", 0, 2)]),  # a type may hold the sign
        ("O O", []),
        ("", []),
    ],
)
def test_tags_of_every_scheme_mean_what_conlleval_reads_in_them(
    written: str, found: list[tuple[str, int, int]]
) -> None:
    assert entities(written.split()) == found


def test_figures_are_those_counted_by_hand() -> None:
    """Three true, four found; one right of each type: the second PER is one word too long, the LOC a PER elsewhere."""
    truth = [[("PER", 0, 2), ("PER", 4, 5)], [("LOC", 1, 2)]]
    found = [[("PER", 0, 2), ("PER", 4, 6)], [("LOC", 1, 2), ("PER", 4, 5)]]
    counts = counted(truth, found)
    assert {kind: list(each) for kind, each in counts.items()} == {"PER": [1, 3, 2], "LOC": [1, 1, 1]}
    figures = summary(counts)
    assert figures["entity_precision"] == 2 / 4
    assert figures["entity_recall"] == 2 / 3
    assert figures["entity_f1"] == pytest.approx(2 * 2 / (4 + 3))
    assert figures["macro_entity_f1"] == pytest.approx((2 / 5 + 1) / 2)
    assert table(counts)[1] == {"label": "PER", "rows": 2, "f1": 2 / 5, "precision": 1 / 3, "recall": 1 / 2}


def drawn(count: int) -> tuple[list[list[Entity]], list[list[Entity]]]:
    """Texts with up to three entities, of which most are found, and some that are not there."""
    random = np.random.Generator(np.random.PCG64(5))
    truth = [[(str(random.choice(["LOC", "PER"])), n, n + 1) for n in range(random.integers(4))] for _ in range(count)]
    found = [[each for each in those if random.random() < 0.8] for those in truth]
    return truth, [[*those, ("PER", 9, 10)] if random.random() < 0.2 else those for those in found]


def test_intervals_are_those_of_texts_drawn_by_hand() -> None:
    truth, found = drawn(200)
    made, random = sample(truth, found), np.random.Generator(np.random.PCG64(9))
    counts, figures, ends = counted(truth, found), made.figures(), made.intervals()
    for name, figure in summary(counts).items():
        assert figures[name] == pytest.approx(figure)
    assert figures["f1"] == pytest.approx([row["f1"] for row in table(counts)])
    rounds = []
    for _ in range(400):
        places = random.integers(0, 200, 200)
        rounds.append(summary(counted([truth[n] for n in places], [found[n] for n in places])))
    for name in rounds[0]:
        by_hand = np.percentile([each[name] for each in rounds], (2.5, 97.5))
        assert ends[name] == pytest.approx(by_hand, abs=0.015), name
    assert ends["f1"].shape == (2, 2)


def test_nothing_found_and_nothing_there_are_zeros() -> None:
    assert set(summary(counted([[]], [[]])).values()) == {0.0}
    assert summary(counted([[("a", 0, 1)]], [[]]))["entity_f1"] == 0.0
    assert float(sample([[]], [[]]).figures()["macro_entity_f1"]) == 0.0


def test_tags_and_entities_are_inverse() -> None:
    spans = [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 7)]
    assert tags(spans, 8) == ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "I-LOC", "I-LOC", "O"]
    assert entities(tags(spans, 8)) == spans


@pytest.mark.parametrize(("tag", "good"), [("O", True), ("B-x", True), ("X-x", False), ("B", False), ("B-", False)])
def test_what_a_tag_is(tag: str, good: bool) -> None:
    assert is_tag(tag) is good


def test_random_tags_count_as_seqeval_counts_them() -> None:
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    random = np.random.Generator(np.random.PCG64(1))
    names = ["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in ("PER", "LOC"))]
    truth, found = ([[str(random.choice(names)) for _ in range(12)] for _ in range(60)] for _ in range(2))
    ours = summary(counted(map(entities, truth), map(entities, found)))
    for name in ("f1", "precision", "recall"):
        assert ours[f"entity_{name}"] == pytest.approx(getattr(seqeval, f"{name}_score")(truth, found))
