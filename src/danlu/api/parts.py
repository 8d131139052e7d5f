"""The parts of a model by name: ours, or those that its family's files have ("encoder.layer.0-9")."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danlu import models
from danlu.errors import UserError
from danlu.messages import text
from danlu.models import foreign

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained

_STATE = 16  # bytes of a trained parameter: itself, its gradient, and AdamW's two running means


def names(model: "Pretrained") -> dict[str, str]:
    """{name of a parameter: what its family's files call it}; its own name where they have none."""
    family = model.form or models.carrier(model.architecture) or ""
    layout = models.by_model_type(family).LAYOUT
    form = layout.form_of(model.architecture.head)
    theirs = {**layout.names, **(form.names if form else {})}
    return {name: _theirs(name, theirs) for name, _ in model.net.named_parameters()}


def _theirs(name: str, known: dict[str, str]) -> str:
    general, number = foreign.template(name)
    found = known.get(name) or known.get(general)
    return found.replace("{n}", number) if found else name


def matching(model: "Pretrained", patterns: Sequence[str]) -> set[str]:
    """The parameters that patterns mean: a part of a name, in which * is any word and 0-9 a range of layers.

    Raises:
        UserError: E143, a pattern means none.
    """
    known = names(model)
    found: set[str] = set()
    for pattern in patterns:
        wanted = re.compile(rf"(?:.*\.)?{_expression(pattern)}(?:\..*)?")
        here = {ours for ours, theirs in known.items() if wanted.fullmatch(ours) or wanted.fullmatch(theirs)}
        if not here:
            raise UserError("E143", found=pattern, valid=", ".join(_heads([*known, *known.values()])))
        found |= here
    return found


def _expression(pattern: str) -> str:
    return r"\.".join(map(_word, pattern.split(".")))


def _word(word: str) -> str:
    if span := re.fullmatch(r"(\d+)-(\d+)", word):
        first, last = map(int, span.groups())
        return f"(?:{'|'.join(map(str, range(first, last + 1)))})"
    return "[^.]*".join(map(re.escape, word.split("*")))


def _heads(found: Iterable[str]) -> list[str]:
    """What names begin with, up to the number of a layer."""
    return list(dict.fromkeys(re.split(r"\.(?=\d|weight|bias)", name)[0] for name in found))[:24]


def last(model: "Pretrained", count: int) -> set[str]:
    """The parameters of the last `count` blocks, and of all that follows them."""
    core: Any = model.net.core
    depth = len(core.blocks)
    wanted = [f"core.blocks.{index}" for index in range(max(0, depth - count), depth)]
    kept = (*(f"{name}." for name in wanted), "core.norm.", "head.")
    return {name for name, _ in model.net.named_parameters() if name.startswith(kept)}


@dataclass(frozen=True)
class Part:
    """A part of a model: the shape of what it gives, and its parameters."""

    name: str
    shape: str
    parameters: int
    trained: int


class Summary:
    """The parts of a model, how many parameters they have, and what it takes to hold and to train them."""

    def __init__(self, model: "Pretrained", depth: int):
        self.name, self.task = type(model).__name__, model.task_name
        self.parts = _parts(model, depth)
        own = list(model.net.parameters())
        self.parameters = sum(p.numel() for p in own)
        self.trained = sum(p.numel() for p in own if p.requires_grad)
        self.megabytes = sum(t.numel() * t.element_size() for t in model.net.state_dict().values()) / 1e6
        self.training_megabytes = (_STATE * self.trained + 4 * (self.parameters - self.trained)) / 1e6

    def rows(self) -> list[list[str]]:
        """The table, its head first."""
        head = [text(f"api.summary.{name}") for name in ("part", "shape", "parameters", "trained")]
        return [head, *([p.name, p.shape, f"{p.parameters:,}", f"{p.trained:,}"] for p in self.parts)]

    def __repr__(self) -> str:
        from danlu.figures import aligned

        share = f"{self.trained / max(self.parameters, 1):.1%}"
        counts = {"total": f"{self.parameters:,}", "trained": f"{self.trained:,}", "share": share}
        sizes = {"held": f"{self.megabytes:,.1f}", "training": f"{self.training_megabytes:,.1f}"}
        lines = aligned(self.rows())
        return "\n".join([f"{self.name} · {self.task}", *lines, text("api.summary.total", **counts, **sizes)])


def _parts(model: "Pretrained", depth: int) -> list[Part]:
    """Modules down to a depth, those that hold parameters; layers of a stack are its own depth."""
    found, seen = [], set()
    for name, module in model.net.named_modules():
        own = list(module.parameters())
        inner = [child for child in module.children() if any(True for _ in child.parameters())]
        level = len(name.split("."))
        if not name or not own or (level < depth and inner) or level > depth:
            continue
        fresh = [p for p in own if id(p) not in seen]
        seen |= {id(p) for p in own}
        found.append(Part(name, _shape(module), sum(p.numel() for p in fresh),
                          sum(p.numel() for p in fresh if p.requires_grad)))  # fmt: skip
    return found


def _shape(module: Any) -> str:
    """Of its own matrices, as rows × columns; of a stack, how many blocks."""
    own = [tuple(p.shape) for p in module.parameters()]
    matrices = [shape for shape in own if len(shape) > 1] or own
    kinds = {"×".join(map(str, shape)): 0 for shape in matrices}
    for shape in matrices:
        kinds["×".join(map(str, shape))] += 1
    shown = [f"{count} of {kind}" if count > 1 else kind for kind, count in kinds.items()]
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "")
