"""`danlu predict`: what a model says of one input, or makes of none; what can be looked at is written as pictures."""

import argparse
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import files, results
from danlu.errors import UserError
from danlu.messages import text
from danlu.usage import device, prompt

if TYPE_CHECKING:
    from danlu.model import Model

PICTURES = "samples.png"  # what a model makes, where nothing is said


def predict(options: argparse.Namespace) -> None:
    """Answer, or with --among rank texts by how close they are; what a model makes is written to a file.

    Raises:
        UserError: what is wrong with the model or the input; E623, it makes no picture that could be written.
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
    said = model.judge([row])[0]
    drawn = {} if given.startswith("data:") else model.task.drawn(said, row)
    results.show(_with_pictures(said, drawn, Path(given)), as_json=options.json)


def _with_pictures(said: Mapping[str, Any], drawn: Mapping[str, bytes], asked: Path) -> Mapping[str, Any]:
    """The answer with the paths of its pictures, written as NAME-FIELD.png, in the place of their bytes.

    They are written where one works, not beside what was asked about: that may be a folder of pictures to learn from.
    """
    shown = dict(said)
    for name, data in drawn.items():
        path = Path(f"{asked.stem}-{name}.png")
        files.write_bytes(path, data)
        shown[name] = str(path)
    return shown


def _make(model: "Model", options: argparse.Namespace) -> None:
    """What is wished for, as usual where nothing is given: standard input is not waited for."""
    made = model.predict("" if options.input is None else prompt(options.input))
    path = Path(options.picture or PICTURES)
    if options.picture or not options.json:
        files.write_bytes(path, base64.b64decode(made["image"]))
    told = text("cli.made", count=made["count"], seed=made["seed"], path=path)
    results.show(made if options.json else told, as_json=options.json)
