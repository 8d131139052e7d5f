"""`danlu evaluate`: one model or two on any rows; of two, whether they differ and on which rows, also as a page."""

import argparse
from pathlib import Path
from typing import Any

from danlu import files, page, results, verdicts
from danlu.errors import UserError
from danlu.messages import text
from danlu.runs import model_folder
from danlu.stages.evaluate import Group, compared, on_data
from danlu.usage import device

_MODELS = 2  # at most


def evaluate(options: argparse.Namespace) -> None:
    """Measure the models and print what comes out; write the page where one is asked for.

    Raises:
        UserError: E118, more than two models; E202, nothing is there; E225, the rows lack a column; and what is wrong
            with the models or the rows.
    """
    if len(options.models) > _MODELS:
        raise UserError("E118", reason=text("compare.two"))
    if not Path(options.data).exists() and not any(sign in options.data for sign in "*?["):
        raise UserError("E202", path=options.data)
    found = {name: _measured(name, options) for name in options.models}
    figures = {name: next(iter(group.figures.values())) for name, group in found.items()}
    intervals = {name: next(iter(group.intervals.values()), {}) for name, group in found.items()}
    comparison, flips = _compared(found)
    if options.page:
        parts = [verdicts.figures(figures, intervals)]
        parts += verdicts.comparison(comparison, flips) if comparison else []
        _write(Path(options.page), " · ".join(options.models), parts)
    if options.json:
        results.show(_table(figures, intervals, comparison, flips), as_json=True)
        return
    results.table(_rows(figures, intervals), as_json=False)
    for line in verdicts.lines(comparison, flips) if comparison else ():
        results.show(line, as_json=False)


def _measured(name: str, options: argparse.Namespace) -> Group:
    """The figures of a model; a column that the rows lack is not to be named in a recipe, as there is none."""
    try:
        return on_data(model_folder(name), options.data, device(options, name))
    except UserError as problem:
        if problem.code != "E201":
            raise
        raise UserError("E225", evidence=problem.evidence, **problem.fields) from problem


def _write(path: Path, title: str, parts: list[str]) -> None:
    style = (Path(__file__).parent / "report.css").read_text("utf-8")
    body = "\n".join([f"<h1>{verdicts.shown(title)}</h1>", *parts])
    files.write_text(path, page.page(title, body, style))


def _compared(found: dict[str, Group]) -> tuple[dict[str, Any], dict[str, Any]]:
    """McNemar's test and the rows that flipped; empty for one model, or where answers are not right or wrong."""
    judged = [(name, group.last) for name, group in found.items() if group.last]
    if len(judged) < _MODELS:
        return {}, {}
    (one, first), (two, second) = judged
    assert first and second
    return compared((one, first), (two, second)) or ({}, {})


def _table(figures: Any, intervals: Any, comparison: Any, flips: Any) -> dict[str, Any]:
    """As JSON: of one model its figures, of two both and how they differ."""
    if len(figures) == 1:
        (only,), (ends,) = figures.values(), intervals.values()
        return {**only, "intervals": ends}
    return {"models": figures, "intervals": intervals, "comparison": comparison, "flips": flips.get("flips", [])}


def _rows(figures: dict[str, dict[str, float]], intervals: dict[str, Any]) -> list[dict[str, Any]]:
    """A line per metric: its value for each model, and between what ends it lies, 19 times of 20."""
    names = list(dict.fromkeys(name for each in figures.values() for name in each))
    rows = []
    for name in names:
        row: dict[str, Any] = {"metric": text(f"metrics.{name}")}
        for model, each in figures.items():
            one = len(figures) == 1
            row["value" if one else model] = each.get(name)
            ends = intervals[model].get(name)
            row["interval" if one else f"{model} ±"] = f"{ends[0]:.4g} – {ends[1]:.4g}" if ends else ""
        rows.append(row)
    return rows
