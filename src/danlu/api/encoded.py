"""Rows -> columns, through the stages that every recipe's data pass."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import catalogue, files
from danlu.data import formats, shapes, sources, starter
from danlu.folder import unnamed
from danlu.graph import Context, View
from danlu.life import Node, life
from danlu.recipe import Loaded

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained
    from danlu.config import Recipe

WHOLE: Mapping[str, Any] = {"split": {"valid": 0.0, "test": 0.0}, "clean": ["normalize", "drop_empty"]}
_LOOKS = ("columns", "pattern", "format", "header", "shape")  # an argument that says how to read
LONGEST = 512  # tokens of a row, unless the call says otherwise
_CONTEXTS = (16, 32, 64, 128, 256, 384)


def found(task: str, paths: list[str], given: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """How to read files: which column is the text, which the label, and which file is for what.

    As the call says, or as it looks, or else as rows were read `before`.
    """
    told = any(name in given for name in _LOOKS)
    if told or len(paths) != 1 or _named(Path(paths[0]), catalogue.stated(task, "shape")):
        return {"path": paths}
    seen = starter.look(Path(paths[0]), task)
    if seen is None:
        return {"path": paths, **before}
    held_out = {"valid": list(map(str, seen.paths("valid")))} if "valid" in seen.files else {}
    return {"path": list(map(str, seen.paths("train"))), **held_out, **seen.keys}


def _named(path: Path, shape: str | None) -> bool:
    """Whether a file's columns have the names of ours already."""
    if shape is None or not path.is_file():
        return False
    (file,) = sources.describe([path])
    if file.format in ("text", "code"):
        return False
    first = next((row for _, row in formats.read(file, formats.Cut()) if isinstance(row, dict)), {})
    return shapes.holds(first, shape)


def describe(model: "Pretrained", folder: Path) -> None:
    """What the encode stage asks of a base: its tokenizer, what it sees at once, and the labels it was taught."""
    files.write_json(
        folder / "config.json",
        {
            "danlu": {
                "schema": files.SCHEMA,
                "context": model.architecture.context,
                "task": "" if model.untrained or unnamed(model.task.labels) else model.task_name,
            },
            "id2label": dict(enumerate(model.task.labels)),
        },
    )
    model.processor.save(folder)


def encode(recipe: "Recipe", base: Path, room: Path, view: View, words: Any = None) -> dict[str, Path]:
    """Run the stages up to the columns; {stage: folder}. `words` is a vocabulary to be learned, not the base's.

    Raises:
        UserError: whatever is wrong with the rows.
    """
    made: dict[str, Path] = {}
    loaded = Loaded(recipe, room / "recipe.toml")
    for node in life(recipe):
        if words and node.stage == "encode":
            node = replace(node, config=node.config | {"tokenizer": words}, external={})
        made[node.name] = _run(node, loaded, made, base, view)
        if node.stage == "encode":
            break
    return made


def _run(node: Node, loaded: Loaded, made: Mapping[str, Path], base: Path, view: View) -> Path:
    out = loaded.base / node.name
    files.remove(out)
    out.mkdir(parents=True)
    inputs = {role: made[name] for role, name in node.inputs.items()} | dict.fromkeys(node.external, base)
    raw = (
        tuple(sources.discover(node.raw, loaded.base, node.config.exclude, shape=node.config.shape)) if node.raw else ()
    )
    context = Context(node.config, inputs, out, loaded, view, raw)
    node.module.run(context)
    return out


def room_for(columns: Path, most: int) -> int:
    """The shortest usual context that holds every row of an encode folder, at most `most`."""
    from danlu.data.columns import Columns

    longest = max((Columns(path).longest for path in (columns / "columns").iterdir()), default=most) or most
    return min([most, *(size for size in _CONTEXTS if size >= longest)])
