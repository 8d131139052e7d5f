"""`danlu predict`: what a model says of one input; what can be looked at is written beside the file."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu import files, results
from danlu.usage import device, prompt


def predict(options: argparse.Namespace) -> None:
    """Answer, or with --among rank texts by how close they are."""
    from danlu.model import Model

    model, given = Model.from_pretrained(options.model, device(options)), prompt(options.input)
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
    results.show(_beside(said, drawn, Path(given)), as_json=options.json)


def _beside(said: Mapping[str, Any], drawn: Mapping[str, bytes], asked: Path) -> Mapping[str, Any]:
    """The answer with the paths of its pictures, written as NAME-FIELD.png, in the place of their bytes."""
    shown = dict(said)
    for name, data in drawn.items():
        path = asked.with_name(f"{asked.stem}-{name}.png")
        files.write_bytes(path, data)
        shown[name] = str(path)
    return shown
