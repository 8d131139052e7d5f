"""Where is computed: one device for a network and all that belongs to it, chosen before anything slow begins.

"auto" is the first CUDA GPU, else the processor. "mps" (Apple's GPU) is there for who asks for it: nothing of danlu was
ever measured on one, so that no recipe gets there by itself.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from danlu import cores, ranks, room
from danlu.config import System
from danlu.errors import UserError

if TYPE_CHECKING:
    import torch

CPU = "cpu"
_FP8 = (8, 9)  # the compute capability of CUDA from which GPUs have products in fp8: Ada, Hopper, Blackwell


def chosen(wanted: str) -> str:
    """The device that a recipe means, as torch writes it: "cpu", "cuda:0", "mps".

    Raises:
        UserError: E127, it is not there; E128, several processes would train on GPUs.
    """
    if wanted == CPU:
        return CPU
    found = available()
    usual = "cuda:0" if "cuda:0" in found else CPU
    device = {"auto": usual, "cuda": "cuda:0"}.get(wanted, wanted)
    if device not in found:
        import torch

        raise UserError("E127", device=wanted, valid=", ".join(found), torch=torch.__version__)
    if device != CPU and ranks.count() > 1:
        raise UserError("E128", device=device, count=ranks.count())
    return device


def check(wanted: str) -> None:
    """Say that a device is not there before anything slow begins; nothing is loaded where the recipe names none.

    Raises:
        UserError: E127, E128.
    """
    if wanted not in ("auto", CPU):
        chosen(wanted)


def multiplies(precision: str, wanted: str) -> None:
    """Say that a device does not compute in a precision; nothing is loaded for those that all devices have.

    Raises:
        UserError: E136; E127 and E128 as `chosen`.
    """
    if precision != "fp8":
        return
    import torch

    where = chosen(wanted)
    if not where.startswith("cuda") or torch.version.hip or torch.cuda.get_device_capability(where) < _FP8:
        raise UserError("E136", device=where, name=name(where))


def available() -> list[str]:
    """The devices of this machine that this torch can compute on."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [CPU, *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def use(system: System) -> str:
    """The device of a recipe; torch is given the recipe's threads, and the system what the stage before has left.

    Raises:
        UserError: E127, E128.
    """
    import torch

    room.give_back()
    torch.set_num_threads(_threads() if system.threads == "auto" else system.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it no product on a GPU can be repeated
    return chosen(system.device)


@cache
def _threads() -> int:
    """What torch found when the first stage began, and no more than the cores that this process may use."""
    import torch

    return max(1, int(min(torch.get_num_threads(), cores.usable())))


def name(device: str) -> str:
    """What the device is called by its maker."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    if device == CPU:
        with contextlib.suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "") or _plain()
    return _plain()


def _plain() -> str:
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def repeatable(device: "torch.device") -> Iterator[None]:
    """Let CUDA take only kernels that give the same bits each time; elsewhere all of ours do.

    Without it gradients of attention and of gathered rows are added up in whatever order threads come.
    """
    if device.type != "cuda":
        yield
        return
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # ours is always written
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def wait(device: "torch.device") -> None:
    """Until all that was asked of a device is done: a clock that is read earlier measures nothing."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    elif device.type == "mps":
        import torch

        torch.mps.synchronize()
