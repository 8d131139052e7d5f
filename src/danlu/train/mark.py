"""The mark of a running training in its folder: it stays where the process is killed, and tells whether for memory."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files, room

if TYPE_CHECKING:
    from danlu.train.plan import Plan

RUNNING = "running.json"
_NEAR = 0.8  # share of the room above which a process may have been killed for memory


@contextlib.contextmanager
def running(folder: Path, plan: "Plan") -> Iterator[None]:
    """Leave a mark in a training's folder for as long as it runs: it stays where the process is killed."""
    needed = plan.memory_mb * 1e6 if plan.device == "cpu" else 0.0  # the kernel kills nobody for a GPU's memory
    mark = {"kills": room.kills(), "boot": room.boot(), "needed": needed, "room": min(room.limit(), 1e18)}
    files.write_json(folder / RUNNING, {"schema": files.SCHEMA, **mark})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / RUNNING).unlink()


def killed(folder: Path) -> bool:
    """Whether the last run of a training was killed for its memory, as far as the kernel tells.

    Its count for our cgroup decides. From another cgroup only the whole machine's is seen, and where the kernel
    counts nothing none: then the plan must have come near the limit. A machine that was restarted tells nothing.
    """
    try:
        mark: dict[str, Any] = json.loads((folder / RUNNING).read_bytes())
        before, now = dict(mark["kills"]), room.kills()
        near = mark["needed"] > _NEAR * mark["room"]
        if mark["boot"] != room.boot():
            return False
        for ours in before.keys() & now.keys() - {room.MACHINE}:
            return bool(now[ours] > before[ours])
        return bool(near and (room.MACHINE not in before or now.get(room.MACHINE, 0) > before[room.MACHINE]))
    except (OSError, ValueError, KeyError, TypeError):
        return False
