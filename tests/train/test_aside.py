"""Tensors set aside: bit for bit what they were, in no memory, and in memory where no file can be."""

import tempfile
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from danlu import files, room
from danlu.train import aside
from danlu.train.aside import Aside, parked
from tests.train.tiny import network, same

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int8)


def some() -> dict[str, Tensor]:
    """Of several kinds and odd sizes, one of them without numbers and one laid out otherwise."""
    made = {str(dtype): torch.randn(3, 7).mul(9).to(dtype) for dtype in DTYPES}
    return made | {"none": torch.empty(0, 4), "one": torch.tensor(3.0), "turned": torch.randn(5, 3).mT}


@pytest.mark.parametrize("in_a_file", [True, False])
def test_they_come_back_as_they_were(in_a_file: bool, tmp_path: Path) -> None:
    tensors = some()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    kept = Aside(tensors, tmp_path if in_a_file else None)
    for tensor in tensors.values():
        tensor.zero_()
    assert same(dict(kept), before)
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_who_changes_what_was_read_does_not_change_what_is_kept(tmp_path: Path) -> None:
    kept = Aside({"a": torch.ones(4)}, tmp_path)
    kept["a"].zero_()
    assert kept["a"].tolist() == [1.0] * 4


def test_nothing_at_all(tmp_path: Path) -> None:
    assert dict(Aside({}, tmp_path)) == {}


@pytest.mark.skipif(not room.resident(), reason="the system does not say what a process holds")
def test_they_take_no_memory_until_they_are_read(tmp_path: Path) -> None:
    tensors = {str(place): torch.ones(2**20) for place in range(50)}
    held = room.resident()
    kept = Aside(tensors, tmp_path)
    assert room.resident() < held + 20e6
    files.write_tensors(tmp_path / "all.safetensors", kept)
    assert room.resident() < held + 80e6, "of 210 MB: they are written one by one"
    assert sum(float(tensor.sum()) for tensor in kept.values()) == 50 * 2**20
    assert room.resident() < held + 80e6
    assert same(files.read_tensors(tmp_path / "all.safetensors"), tensors)


@pytest.mark.parametrize("when", ["made", "written"])
def test_where_the_disk_is_full_they_stay_in_memory(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((tempfile, "TemporaryFile") if when == "made" else (aside, "tensor_bytes")), full)
    tensors = some()
    assert same(dict(Aside(tensors, tmp_path)), tensors)


@pytest.mark.parametrize("fails", [True, False])
def test_a_parked_network_is_empty_and_comes_back(fails: bool, tmp_path: Path) -> None:
    net = network()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    try:
        with parked(net, tmp_path):
            assert not any(p.numel() for p in net.parameters())
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert same({name: p.detach() for name, p in net.named_parameters()}, before)


def test_what_failed_is_let_go_of_before_the_weights_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory ran out there is no room for both."""
    held: list[weakref.ref[Tensor]] = []
    read = Aside.__getitem__

    def fails() -> None:
        copied = torch.ones(4)
        held.append(weakref.ref(copied))
        raise MemoryError

    def seen(kept: Aside, name: str) -> Tensor:
        assert held[0]() is None
        return read(kept, name)

    monkeypatch.setattr(Aside, "__getitem__", seen)
    with pytest.raises(MemoryError), parked(network(), tmp_path):
        fails()
