"""How much room a disk has, and whether that is enough: asked before anything slow."""

import shutil
from pathlib import Path

from danlu.errors import UserError


def require(path: Path, needed: float) -> None:
    """Raise UserError E407 where the disk of `path` has no room for so many bytes."""
    if (found := free(path)) < needed:
        raise UserError("E407", path=path, needed=legible(needed), free=legible(found))


def free(path: Path) -> int:
    """Bytes that the disk of `path` has left; the path itself need not exist yet."""
    return shutil.disk_usage(next(each for each in (path, *path.absolute().parents) if each.exists())).free


def legible(size: float) -> str:
    """Bytes as they are read: 12 MB, 340 kB."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e3:,.0f} kB"
