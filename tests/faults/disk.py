"""Every change of the disk, met before it happens.

What danlu writes goes through six primitives of `danlu.files`; what creates and deletes folders, and what replaces
files, through five calls of `os`. Both are replaced here by calls that ask first. Real syncs are left out: they cost
nothing but time, and a killed process loses nothing that it handed to the system.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu import files

CALLS = {
    "open": (files, "_open"), "write": (files, "_write"), "fsync": (files, "_fsync"), "sync": (files, "_sync_folder"),
    "rename": (os, "replace"), "unlink": (os, "unlink"), "rmdir": (os, "rmdir"), "mkdir": (os, "mkdir"),
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One call that is about to change the disk."""

    kind: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def path(self) -> Path:
        """What is changed; deleting a tree names files relative to an open folder."""
        first, folder = self.arguments[0], self.named.get("dir_fd")
        path = Path(first if isinstance(first, str | Path) else first.name)
        return path if folder is None else Path(os.readlink(f"/proc/self/fd/{folder}")) / path

    def half(self) -> None:
        """Do a part of it, where it has parts: the first half of a write reaches the disk."""
        if self.kind == "write":
            file, data = self.arguments
            file.write(data[: len(data) // 2])
            file.flush()


Meet = Callable[[Change], None]


def tap(meet: Meet, patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let `meet` see each change before it is made; what it raises is what the change raises."""
    patch(os, "fsync", lambda handle: None)
    for kind, (module, name) in CALLS.items():
        patch(module, name, _met(kind, getattr(module, name), meet))


def _met(kind: str, real: Callable[..., Any], meet: Meet) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        meet(Change(kind, arguments, named))
        return real(*arguments, **named)

    return call
