"""A GPU without one: torch's "meta" tensors stand on the device, and whatever would fail or wait on a GPU is an error.

A meta tensor has a shape and no data, so that reading a value of one (`float`, `bool`, `nonzero`: the host would wait
for the GPU) raises by itself. That tensors of two devices meet is refused here, as CUDA does: torch's rules, of which
its fake tensors know more, cannot be asked: with gradients they need a torch that is built for CUDA.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
_MOVES = ("aten._to_copy.default", "aten.copy_.default")  # from one device to another, if that is allowed now


class Mixed(Exception):
    """Tensors of two devices in one operation."""


class Crossed(Exception):
    """A tensor sent to the device where nothing should be: the host would wait until it is there."""


class OneDevice(TorchDispatchMode):
    """Every operation has all its tensors on one device; numbers may come from the host, as CUDA allows."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0  # how many allow crossings now
        self.crossed = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        devices = {t.device.type for t in given if t.ndim or t.device.type == "meta"}
        move = str(func) in _MOVES
        wanted = kwargs.get("device")
        goes = move and given and wanted is not None and torch.device(wanted).type != given[0].device.type
        if goes or (move and len(devices) > 1):
            self.crossed += 1
            if not self.open:
                raise Crossed(str(func))
        elif len(devices) > 1:
            raise Mixed(f"{func}: {[(tuple(t.shape), t.device.type) for t in given]}")
        return func(*args, **kwargs)

    @contextmanager
    def crossing(self) -> Iterator[None]:
        self.open += 1
        yield
        self.open -= 1


class Anywhere(torch.Generator):
    """A generator of any device; meta has none."""

    def __new__(cls, device: object = "cpu") -> "Anywhere":
        return super().__new__(cls)
