"""Tensors that a training may want again, set aside: in a file that has no name, and takes no memory.

Each is read when it is asked for, and is in memory for as long as it is used. The file goes with the process. Where the
folder itself is kept in memory (tmpfs), nothing is won.
"""

import contextlib
import errno
import tempfile
import traceback
import weakref
from collections.abc import Iterator, Mapping
from io import BufferedRandom
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from danlu.device import CPU
from danlu.files import tensor_bytes


class Aside(Mapping[str, Tensor]):
    """A copy of tensors by name: in a file in `folder`; in memory without one, on a GPU and where the disk is full."""

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path | None):
        on_cpu = all(tensor.device.type == CPU for tensor in tensors.values())
        self._file = _written(tensors, folder) if folder and on_cpu else None
        if self._file:
            weakref.finalize(self, self._file.close)
        self._copies = {n: _like(t) if self._file else t.detach().clone() for n, t in tensors.items()}
        ends = accumulate(tensor.nbytes for tensor in tensors.values())
        self._starts = {name: end - tensor.nbytes for (name, tensor), end in zip(tensors.items(), ends, strict=True)}

    def __getitem__(self, name: str) -> Tensor:
        """The tensor: of a file one of its own, read anew.

        Raises:
            KeyError: there is none of this name.
            OSError: the file cannot be read.
        """
        if self._file is None:
            return self._copies[name]
        tensor = torch.empty_like(self._copies[name], device=CPU)
        self._file.seek(self._starts[name])
        if tensor.numel() and self._file.readinto(tensor_bytes(tensor)) != tensor.nbytes:
            raise OSError(errno.EIO, "what was set aside is cut off")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._copies)

    def __len__(self) -> int:
        return len(self._copies)


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
    except BaseException as failed:
        traceback.clear_frames(failed.__traceback__)  # they hold the copy, in whose place the weights come back
        raise
    finally:
        for name, weight in kept.items():
            named[name].data = weight


def _written(tensors: Mapping[str, Tensor], folder: Path) -> BufferedRandom | None:
    """A file of tensors one after the other; None where it cannot be written, or there is nothing to write."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        for tensor in tensors.values():
            file.write(tensor_bytes(tensor))
        file.flush()
        if file.tell():
            stack.pop_all()
            return file
    return None


def _like(tensor: Tensor) -> Tensor:
    """Its shape and kind without its numbers, laid out as it is written."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
