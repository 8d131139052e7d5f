"""The mark of a running training in its folder: it stays where the process is killed, and tells whether for memory."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files
from danlu.train import room

if TYPE_CHECKING:
    from danlu.train.plan import Plan

RUNNING = "running.json"
_NEAR = 0.8  # share of the room above which a process killed without a word was most likely killed for memory


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
    """Whether the last run of a training was killed, and most likely for its memory."""
    try:
        mark: dict[str, Any] = json.loads((folder / RUNNING).read_bytes())
        counted = mark["boot"] == room.boot() and room.kills() > mark["kills"]
        return bool(counted or mark["needed"] > _NEAR * mark["room"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
