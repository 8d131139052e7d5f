"""Packing loses and repeats nothing, and documents in one row never see each other."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from danlu.data.columns import Columns, ColumnWriter
from danlu.data.loader import IGNORE, Loader, Shape
from danlu.data.pack import fitted, packed, windows
from danlu.models import gpt2, qwen3
from danlu.models.architecture import build

SIZES = st.lists(st.integers(0, 90), min_size=1, max_size=60)


def offsets(sizes: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


# --- windows and rows ---


@given(sizes=SIZES, context=st.integers(1, 40))
def test_every_prediction_is_made_exactly_once(sizes: list[int], context: int) -> None:
    bounds = offsets(sizes)
    cut = windows(bounds, context, long="split")
    targets = [start + 1 + i for start, n in zip(cut.start, cut.length, strict=True) for i in range(n)]
    expected = [at for a, b in itertools.pairwise(bounds) for at in range(a + 1, b)]
    assert targets == expected
    assert all(1 <= n <= context for n in cut.length)


@given(sizes=SIZES, context=st.integers(1, 40))
def test_dropping_keeps_the_rows_that_fit(sizes: list[int], context: int) -> None:
    bounds = offsets(sizes)
    left = windows(bounds, context, long="drop")
    kept = {int(start): int(n) for start, n in zip(left.start, left.length, strict=True)}
    assert kept == {int(a): n - 1 for a, n in zip(bounds, sizes, strict=False) if 1 < n <= context + 1}


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=150), spare=st.integers(0, 30))
def test_rows_are_never_too_long_nor_half_empty(lengths: list[int], spare: int) -> None:
    context = max(lengths) + spare
    rows = packed(np.array(lengths), context)
    assert sorted(int(w) for row in rows for w in row) == list(range(len(lengths)))
    filled = [sum(lengths[w] for w in row) for row in rows]
    assert max(filled) <= context
    assert sum(each <= context / 2 for each in filled) <= 1, "two half-empty rows would fit into one"


def test_padding_is_the_share_of_places_without_a_token(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, {"input_ids": "uint16"})
    for size in (9, 6, 4):  # 8, 5 and 3 predictions: two full rows of 8
        writer.add({"input_ids": np.arange(size)})
    writer.close()
    assert Loader(Columns(tmp_path), 8, long="split", seed=1).padding == 0
    wide = Loader(Columns(tmp_path), 10, long="split", seed=1)  # rows of 8 and of 5 + 3
    assert wide.padding == pytest.approx(4 / 20)
    seen = torch.cat([batch["segment_ids"].flatten() for batch in wide.evaluation(1)])
    assert wide.padding == pytest.approx(float((seen == 0).float().mean()))


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_the_tightest_gap_is_taken(lengths: list[int]) -> None:
    """Against the textbook's loop: the longest first, each where least room is left."""
    rows: list[list[int]] = []
    for window in sorted(range(len(lengths)), key=lambda w: -lengths[w]):
        rooms = [20 - sum(lengths[w] for w in row) for row in rows]
        fitting = [room for room in rooms if room >= lengths[window]]
        if fitting:
            rows[max(i for i, room in enumerate(rooms) if room == min(fitting))].append(window)
        else:
            rows.append([window])
    found = packed(np.array(lengths), 20)
    assert sorted(sum(lengths[w] for w in row) for row in found) == sorted(sum(lengths[w] for w in row) for row in rows)


def test_padding_is_small() -> None:
    random = np.random.Generator(np.random.PCG64(1))
    sizes = [int(n) for n in np.clip(random.lognormal(5, 1, 3000), 2, 4000)]
    cut = windows(offsets(sizes), 512, long="split")
    rows = packed(cut.length, 512)
    assert 1 - cut.length.sum() / (512 * len(rows)) < 0.001


@pytest.mark.parametrize(
    ("lengths", "context", "row"),
    [
        ([20] * 96, 512, 64),  # a sixteenth stays empty, but so it does in longer ones
        ([16] * 96, 512, 64),
        ([16] * 96, 48, 48),  # short enough
        ([16] * 96 + [65], 512, 128),  # all of it fits
        ([16] * 96 + [300], 512, 512),
        ([40] * 60, 256, 128),  # of 64 a third would be empty
        ([16] * 96, 258, 129),  # an odd row is not halved
        ([], 256, 256),
    ],
)
def test_rows_of_short_windows_are_short(lengths: list[int], context: int, row: int) -> None:
    found, rows = fitted(np.array(lengths, np.int64), context)
    assert found == row
    assert [list(each) for each in rows] == [list(each) for each in packed(np.array(lengths, np.int64), row)]


def test_short_rows_hold_the_same_texts_and_teach_the_same(tmp_path: Path) -> None:
    """Each token with its place and target, and the sum of all losses: the model sees no difference."""
    written = columns(tmp_path, [list(range(100 * i, 100 * i + 17)) for i in range(8)])
    short, long = Loader(written, 128, long="split", seed=1), Loader(written, 100, long="split", seed=1)
    assert (short.context, short.limit, long.context) == (64, 128, 100)
    net = build(gpt2.preset(800, 128, 1, width=32, heads=2), torch.Generator().manual_seed(1)).double().eval()
    seen, sums = [], []
    for loader in (short, long):
        batches = list(loader.evaluation(1))
        rows = [torch.stack([each[name][0] for name in ("input_ids", "position_ids", "labels")]) for each in batches]
        seen.append(sorted(tuple(one) for row in rows for one in row.T.tolist() if one[2] != IGNORE))
        with torch.no_grad():
            losses = [cross_entropy(net(each)[0], each["labels"][0], reduction="sum") for each in batches]
        sums.append(float(sum(losses)))
    assert len(seen[0]) == 8 * 16 and seen[0] == seen[1]
    assert sums[0] == pytest.approx(sums[1], abs=1e-9)


# --- batches ---


def columns(folder: Path, rows: list[list[int]], masks: list[list[int]] | None = None) -> Columns:
    dtypes = {"input_ids": "uint16"} | ({"loss_mask": "uint8"} if masks else {})
    writer = ColumnWriter(folder, dtypes)
    for index, row in enumerate(rows):
        writer.add({"input_ids": row} | ({"loss_mask": masks[index]} if masks else {}))
    writer.close()
    return Columns(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(data=st.data(), sizes=st.lists(st.integers(2, 50), min_size=1, max_size=12), masked=st.booleans())
def test_labels_are_the_next_tokens(
    data: st.DataObject, sizes: list[int], masked: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every token has a value of its own, so that each label tells where it comes from."""
    bounds, context = offsets(sizes), 16
    rows = [list(range(a + 1, b + 1)) for a, b in itertools.pairwise(bounds)]
    masks = [data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in sizes] if masked else None
    loader = Loader(columns(tmp_path_factory.mktemp("c"), rows, masks), context, long="split", seed=1)
    counted = {token for r, row in enumerate(rows) for i, token in enumerate(row) if not masks or masks[r][i]}
    predicted: list[int] = []
    for batch in loader.evaluation(3):
        ids, labels = batch["input_ids"], batch["labels"]
        positions, segments = batch["position_ids"], batch["segment_ids"]
        assert all(tensor.dtype == torch.int64 and tensor.shape == ids.shape for tensor in batch.values())
        kept = labels != IGNORE
        assert torch.equal(labels[kept], ids[kept] + 1)
        assert torch.equal(kept & (segments == 0), torch.zeros_like(kept))
        predicted += labels[kept].tolist()
        for b in range(len(ids)):
            for segment in range(1, int(segments[b].max()) + 1):
                here = segments[b] == segment
                assert positions[b][here].tolist() == list(range(int(here.sum())))
                values = ids[b][here].tolist()
                assert values == list(range(values[0], values[0] + len(values)))
                assert any(row[0] <= values[0] and values[-1] < row[-1] for row in rows), "a segment is of one document"
    expected = [token for row in rows for token in row[1:] if token in counted]
    assert sorted(predicted) == expected


def loader(folder: Path, seed: int, count: int = 37) -> Loader:
    random = np.random.Generator(np.random.PCG64(4))
    rows = [random.integers(1, 500, int(random.integers(20, 32))).tolist() for _ in range(count)]
    return Loader(columns(folder, rows), 32, long="split", seed=seed)


def epoch(loader: Loader, number: int, rows: int = 1, accumulate: int = 1) -> list[bytes]:
    """The packed rows of an epoch in order."""
    first, size = number * len(loader), rows * accumulate
    found = []
    for place in range(first, first + len(loader)):
        step, rest = divmod(place, size)
        batch = loader.train(step, rest // rows, Shape(rows, accumulate))
        found.append(batch["input_ids"][rest % rows].numpy().tobytes())
    return found


def test_the_order_is_a_pure_function_of_seed_and_epoch(tmp_path: Path) -> None:
    one, other = loader(tmp_path / "a", 1), loader(tmp_path / "b", 2)
    first = epoch(one, 0)
    assert len(set(first)) == len(one) == 37
    third = epoch(loader(tmp_path / "c", 1), 2)  # asked for alone, without the epochs before it
    assert third == epoch(one, 2)
    assert epoch(one, 0) == first
    for others in (epoch(one, 1), third, epoch(other, 0)):
        assert sorted(others) == sorted(first)
        assert others != first


@pytest.mark.parametrize(("rows", "accumulate"), [(2, 1), (1, 4), (3, 2), (8, 2)])
def test_how_a_step_is_cut_does_not_change_the_order(rows: int, accumulate: int, tmp_path: Path) -> None:
    made = loader(tmp_path, 1)
    for number in (0, 1):
        assert epoch(made, number, rows, accumulate) == epoch(made, number)


def test_evaluation_sees_every_row_once_or_a_fixed_part(tmp_path: Path) -> None:
    one, other = loader(tmp_path / "a", 1), loader(tmp_path / "b", 2)
    every = [row.numpy().tobytes() for batch in one.evaluation(5) for row in batch["input_ids"]]
    assert len(every) == len(set(every)) == len(one)
    part = [
        [row.numpy().tobytes() for batch in each.evaluation(4, 10) for row in batch["input_ids"]]
        for each in (one, other)
    ]
    assert len(part[0]) == 10
    assert part[0] == part[1], "what is watched does not depend on the seed"
    assert set(part[0]) < set(every)


def test_nothing_to_predict(tmp_path: Path) -> None:
    made = Loader(columns(tmp_path, [[1], [], [2]]), 8, long="split", seed=1)
    assert (len(made), made.predictions, list(made.evaluation(4))) == (0, 0, [])


# --- documents in one row ---


@pytest.mark.parametrize("form", ["sdpa", "written"])
@pytest.mark.parametrize("family", [qwen3, gpt2], ids=["qwen3", "gpt2"])
def test_attention_and_position_never_cross_a_document(family: Any, form: str, tmp_path: Path) -> None:
    """In float64: what B's tokens say depends on B alone, wherever it stands and whoever stands beside it."""
    a, b, c = [5, 9, 3, 7, 5, 2, 8], [4, 1, 6, 2, 9], [3, 3, 8, 1]
    made = Loader(columns(tmp_path, [a, b, c]), 16, long="split", seed=1)
    assert len(made) == 1
    batch = made.assemble([0])
    shape = family.preset(12, 16, 2, width=32, heads=2)
    net = build(replace(shape), torch.Generator().manual_seed(1)).double().eval()
    net.core.attention_form = form
    with torch.no_grad():
        before = net(batch)[0]
        for document in (a, b, c):
            here = _where(batch, document)
            alone = net({"input_ids": torch.tensor([document[:-1]])})[0]
            torch.testing.assert_close(before[here], alone, rtol=0, atol=1e-12)
            changed = batch | {"input_ids": batch["input_ids"].clone()}
            changed["input_ids"][0, here] = 11 - changed["input_ids"][0, here]
            after = net(changed)[0]
            others = torch.ones(16, dtype=torch.bool)
            others[here] = False
            assert torch.equal(after[others], before[others])
            assert not torch.allclose(after[here], before[here])


def _where(batch: dict[str, torch.Tensor], document: list[int]) -> torch.Tensor:
    """The places of a document in the one row of a batch."""
    for segment in (1, 2, 3):
        here = (batch["segment_ids"][0] == segment).nonzero().flatten()
        if batch["input_ids"][0, here].tolist() == document[:-1]:
            return here
    raise AssertionError("the document is not there")


def test_without_segments_the_comparison_sees_the_neighbours(tmp_path: Path) -> None:
    made = Loader(columns(tmp_path, [[5, 9, 3, 7, 5, 2, 8], [4, 1, 6, 2, 9]]), 16, long="split", seed=1)
    batch = made.assemble([0])
    net = build(qwen3.preset(12, 16, 2, width=32, heads=2), torch.Generator().manual_seed(1)).double().eval()
    blind = {"input_ids": batch["input_ids"], "segment_ids": torch.ones_like(batch["segment_ids"])}
    with torch.no_grad():
        here = _where(batch, [4, 1, 6, 2, 9])
        assert not torch.allclose(net(blind)[0, here], net(batch)[0, here])


# --- rows of one place each ---


@pytest.mark.parametrize("shard_bytes", [1 << 30, 40])
def test_rows_of_one_place_are_filled_as_others_are(tmp_path: Path, shard_bytes: int) -> None:
    """All at once, or one by one: the same numbers; a batch over the end of an epoch draws for each row by its own."""
    shapes = {"pixel_values": (2, 3)}
    kinds = {"input_ids": "uint16", "labels": "int16", "weight": "float32", "pixel_values": "uint8"}
    writer = ColumnWriter(tmp_path, kinds, shapes=shapes, shard_bytes=shard_bytes)
    for n in range(11):
        pixels = np.arange(6).reshape(2, 3) + n
        writer.add({"input_ids": [n], "labels": [-100 if n == 4 else n % 3], "weight": [n / 4], "pixel_values": pixels})
    writer.close()
    together, single = (Loader(Columns(tmp_path), 1, long="drop", seed=5, ahead=0) for _ in range(2))
    assert together.alone
    single.alone = False
    for step in range(5):
        found, wanted = (loader.train(step, 0, Shape(4, 1)) for loader in (together, single))
        assert found.keys() == wanted.keys() == {*kinds, "position_ids", "segment_ids", "lots"}
        assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in found)
        rows = [divmod(place, 11) for place in range(4 * step, 4 * step + 4)]
        each = [together._drawn(epoch, together.examples([together._row(11 * epoch + at)])) for epoch, at in rows]
        assert found["lots"].tolist() == np.concatenate(each).tolist()
    assert all(
        torch.equal(a, b) for a, b in zip(together.assemble([]).values(), single.assemble([]).values(), strict=True)
    )
