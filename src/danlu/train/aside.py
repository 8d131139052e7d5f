"""Tensors that a training may want again, set aside: in a file that has no name, and takes no memory.

What is read of it comes into memory for as long as it is used. The file goes with the process. Where the folder itself
is kept in memory (tmpfs), nothing is won.
"""

import contextlib
import mmap
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from danlu.device import CPU
from danlu.files import tensor_bytes

_ALIGNED = 64  # bytes at whose multiples tensors begin


class Aside:
    """A copy of tensors by name: in a file in `folder`; in memory without one, on a GPU and where the disk is full."""

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path | None):
        on_cpu = all(tensor.device.type == CPU for tensor in tensors.values())
        self._file = _written(tensors, folder) if folder and on_cpu else None
        if self._file:
            weakref.finalize(self, self._file.close)
        self._copies = {n: t.detach().to("meta") if self._file else t.detach().clone() for n, t in tensors.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All of them, to be read."""
        if self._file is None:
            return dict(self._copies)
        whole = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        found, start = dict[str, Tensor](), 0
        for name, like in self._copies.items():
            found[name] = _at(whole, start, like)
            start += _room(like)
        return found


@contextlib.contextmanager
def parked(net: nn.Module, folder: Path | None) -> Iterator[None]:
    """Inside, a network whose copy is at work is empty; afterwards its weights are what they were."""
    if folder is None:
        yield
        return
    named = {name: p for name, p in net.named_parameters() if p.device.type == CPU}
    kept = Aside({name: p.data for name, p in named.items()}, folder)
    try:
        for p in named.values():
            p.data = p.data.new_empty(0)
        yield
    finally:
        for name, weight in kept.tensors().items():
            named[name].data = _own(weight)


def _written(tensors: Mapping[str, Tensor], folder: Path) -> IO[bytes] | None:
    """A file of tensors one after the other; None where it cannot be written, or there is nothing to write."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        for tensor in tensors.values():
            file.write(tensor_bytes(tensor))
            file.write(bytes(_room(tensor) - tensor.nbytes))
        file.flush()
        if file.tell():
            stack.pop_all()
            return file
    return None


def _own(mapped: Tensor) -> Tensor:
    """A tensor in memory; where there is no room, what is read of the file at need."""
    try:
        return mapped.clone()
    except (RuntimeError, MemoryError):
        return mapped


def _at(whole: mmap.mmap, start: int, like: Tensor) -> Tensor:
    if not like.numel():  # torch reads no empty stretch
        return torch.empty_like(like, device=CPU)
    return torch.frombuffer(whole, dtype=like.dtype, count=like.numel(), offset=start).view(like.shape)


def _room(tensor: Tensor) -> int:
    """Bytes from the beginning of a tensor to that of the next."""
    return -(-tensor.numel() * tensor.element_size() // _ALIGNED) * _ALIGNED
