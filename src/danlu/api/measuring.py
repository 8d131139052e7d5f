"""`evaluate` and the rows of `predict`."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu import device, files
from danlu.api import encoded, numbers, rows, wish
from danlu.api.fitting import threads
from danlu.api.outcome import Report, Row
from danlu.api.view import Notes, notes
from danlu.data import formats, sources
from danlu.errors import UserError
from danlu.stages.evaluate import Judged, judged_on, measure

if TYPE_CHECKING:
    from danlu.api.pretrained import Pretrained


def evaluate(model: "Pretrained", test: Any, quiet: bool, given: dict[str, Any]) -> Report:
    """Measure a model on rows; arguments as of `Pretrained.evaluate`."""
    test = rows.held(test)
    if model.untrained:
        raise UserError("E142", name=type(model).__name__)
    with notes(quiet=quiet) as view, threads(), tempfile.TemporaryDirectory(prefix="danlu-evaluate-") as name:
        room = Path(name).resolve()
        base = room / "base"
        base.mkdir()
        encoded.describe(model, base)
        system = wish.recipe("evaluate", model.asked_for, base, {"path": "?"}, given).system
        if {"device", "threads"} & given.keys():
            where = device.use(system)
            model.to(where if "device" in given else model.net.device)
        if (numbered := numbers.given(test)) is not None:
            return _of_numbers(model, list(numbered), room / "encode", view)
        reading = _reading(model, rows.written(test, room, "test"), given)
        recipe = wish.recipe("evaluate", model.asked_for, base, {**encoded.WHOLE, **reading}, given)
        made = encoded.encode(wish.with_context(recipe, model.context), base, room, view)
        whole = judged_on(model, made["encode"], made["prepare"])
        count = files.read_json(made["prepare"] / "funnel.json")["splits"]["train"]
        return _report(model, made["encode"], whole, count, view)


def _report(model: "Pretrained", columns: Path, whole: Judged, count: int, view: Notes) -> Report:
    report = Report(measure(model, columns, model.task) | whole.scores, whole, count)
    view.line(repr(report))
    return report


def _of_numbers(model: "Pretrained", found: list[Any], out: Path, view: Notes) -> Report:
    """The same for rows that are numbers already."""
    numbers.write(model, {"train": iter(found)}, 0.0, out)
    whole = Judged(model.task, [], [])
    if model.judges:
        known = [{"text": model.processor.decode(numbers.ids(row)), **numbers.named(model, row)} for row in found]
        whole = Judged(model.task, known, model.predict(found))
    return _report(model, out, whole, len(found), view)


def _reading(model: "Pretrained", paths: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """How the rows are read: as they look, else as those were that the model was fitted to."""
    found = encoded.found(model.task_name, paths, given, model.reading)
    return {**{name: value for name, value in found.items() if name != "valid"}, "path": paths}


def asked(model: "Pretrained", data: Any) -> list[Row]:
    """The rows to predict for; files are read as those were that the model was fitted to.

    Raises:
        UserError: E272, there are none in it; or a file cannot be read.
    """
    paths = rows.paths(data)
    if paths is None:
        return list(rows.rows(data))
    told = model.reading
    cut = formats.Cut(record="line", header=told.get("header", True), pattern=told.get("pattern"))
    found = sources.describe(sources.discover(paths, Path.cwd()), format=told.get("format", "auto"))
    return [row for file in found for _, row in formats.read(file, cut) if isinstance(row, dict)]
