"""`danlu predict`: what a model says of one input, or makes of none; what can be looked at is written as pictures."""

import argparse
import base64
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files, results
from danlu.errors import UserError
from danlu.messages import text
from danlu.terminal import Terminal
from danlu.usage import device, prompt

if TYPE_CHECKING:
    from danlu.model import Model
    from danlu.tasks.task import Row

PICTURES = "samples"  # NAME of what a model makes, where nothing is said


def predict(options: argparse.Namespace) -> None:
    """Answer, or with --among rank texts by how close they are; what a model makes is written to a file.

    Raises:
        UserError: what is wrong with the model or the input; E615, it says nothing; E623, it makes no picture that
            could be written.
    """
    from danlu.model import Model

    model = Model.from_pretrained(options.model, device(options))
    if model.makes and not options.among:
        _make(model, options)
        return
    if options.picture:
        raise UserError("E623", task=model.task_name)
    given = prompt(options.input)
    if options.among:
        from danlu import search

        results.table(search.nearest(model, given, search.texts_of(options.among)), as_json=options.json)
        return
    if not model.judges:
        results.show(model.predict(given), as_json=options.json)
        return
    row = model.asked(given)
    if not any(each for each in row.values() if not isinstance(each, str) or each.strip()):
        raise UserError("E615", names=", ".join(row))
    _cut(model, row, Terminal(quiet=options.quiet))
    said = model.judge([row])[0]
    drawn = {} if given.startswith("data:") else model.task.drawn(said, row)
    results.show(_with_pictures(said, drawn, Path(given)), as_json=options.json)


def _cut(model: "Model", row: "Row", view: Terminal) -> None:
    """Tell how much of a text is not read."""
    from danlu.explain.explanation import unread

    if model.task.long == "cut" and (count := unread(model, row)):
        view.line(text("cli.unread", count=f"{count:,}", limit=model.context))


def _with_pictures(said: Mapping[str, Any], drawn: Mapping[str, bytes], asked: Path) -> Mapping[str, Any]:
    """The answer with the paths of its pictures, written as NAME-FIELD.png, in the place of their bytes."""
    paths = _written({f"{asked.stem}-{name}": data for name, data in drawn.items()})
    return {**said, **dict(zip(drawn, map(str, paths), strict=True))}


def _written(pictures: Mapping[str, bytes]) -> list[Path]:
    """Write pictures as NAME.png, or all of them as NAME-2.png, NAME-3.png, ... where there are others of that name.

    They are written where one works, not beside what was asked about: that may be a folder of pictures to learn from.
    """
    for number in itertools.count(1):
        made = {Path(f"{name}-{number}.png" if number > 1 else f"{name}.png"): data for name, data in pictures.items()}
        if all(not path.exists() or (path.is_file() and path.read_bytes() == data) for path, data in made.items()):
            break
    for path, data in made.items():
        files.write_bytes(path, data)
    return list(made)


def _make(model: "Model", options: argparse.Namespace) -> None:
    """What is wished for, as usual where nothing is given: standard input is not waited for."""
    made = model.predict("" if options.input is None else prompt(options.input))
    path, data = Path(options.picture or PICTURES), base64.b64decode(made["image"])
    if options.picture:
        files.write_bytes(path, data)
    elif not options.json:
        (path,) = _written({PICTURES: data})
    told = text("cli.made", count=made["count"], seed=made["seed"], path=path)
    results.show(made if options.json else told, as_json=options.json)
