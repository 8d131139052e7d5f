"""Where a name stands in danlu's source: pages lead from an idea to the lines that do it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the package danlu
_LINK = re.compile(r"\[([^\]]+)\]\(source:([\w.]+)\)")


@dataclass(frozen=True)
class Place:
    """Lines first ... last of a file; `path` is below the package."""

    path: Path
    first: int
    last: int

    @property
    def text(self) -> str:
        return "\n".join((ROOT / self.path).read_text("utf-8").splitlines()[self.first - 1 : self.last])

    def __str__(self) -> str:
        return f"danlu/{self.path.as_posix()}:{self.first}"


def find(name: str) -> Place:
    """ "nn.mlp.GatedMLP" or "nn.mlp.GatedMLP.forward" or "nn.mlp", without the leading danlu.

    Raises:
        LookupError: nothing of that name stands there.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = Path(*parts[:length]).with_suffix(".py")
        if (ROOT / path).is_file():
            return _inside(path, parts[length:])
    raise LookupError(f"no module of danlu holds {name}")


def _inside(path: Path, names: list[str]) -> Place:
    text = (ROOT / path).read_text("utf-8")
    node: ast.AST = ast.parse(text)
    for name in names:
        found = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == name]
        if not found:
            raise LookupError(f"{path} holds no {name}")
        node = found[0]
    return Place(path, getattr(node, "lineno", 1), getattr(node, "end_lineno", len(text.splitlines())))


def link(text: str, form: Callable[[str, Place], str]) -> str:
    """Write every [words](source:name) of a text in the form that its medium has for links."""
    return _LINK.sub(lambda found: form(found[1], find(found[2])), text)


def places(text: str) -> list[Place]:
    """Every place that a text leads to, once."""
    return list(dict.fromkeys(find(found[2]) for found in _LINK.finditer(text)))
