"""The key figures of a run: its models side by side, as the report and the terminal show them."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu import files
from danlu.artifact import Lineage
from danlu.graph import Run
from danlu.messages import text

Form = Callable[[float], str]


def short(value: float) -> str:
    """12,345,678 as "12.3M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}" if abs(value) < 999.5 * size else f"{value / size:,.0f}{unit}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """ "38 s", "4.2 min", "1.5 h" in the language in force."""
    if seconds < 90:
        return text("report.seconds", n=f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}")
    return (
        text("report.minutes", n=f"{seconds / 60:.1f}")
        if seconds < 5400
        else text("report.hours", n=f"{seconds / 3600:.1f}")
    )


def _share(value: float) -> str:
    return f"{value:.1%}"


def _measure(digits: int) -> Form:
    return lambda value: f"{value:,.{digits}f}"


# --- what a run holds --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One figure of every model; `best` chooses the best of them."""

    label: str
    group: str  # "made" how the model came to be, "held_out", "answers", "use" size and speed
    values: dict[str, float]
    form: Form
    best: Callable[[Iterable[float]], float] | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def cell(self, column: str) -> str:
        value = self.values.get(column)
        return "—" if value is None else self.form(value)

    def ends(self, column: str) -> str:
        """Between what a figure lies, 19 times of 20; "" where it is not known."""
        return "–".join(map(self.form, self.intervals[column])) if column in self.intervals else ""

    def is_best(self, column: str) -> bool:
        """Whether this is the best of two or more that differ as shown."""
        shown = {self.cell(each) for each in self.values}
        return self.best is not None and len(shown) > 1 and self.values.get(column) == self.best(self.values.values())


@dataclass
class Figures:
    """Models (column -> the name shown) and the rows of figures they are compared by."""

    columns: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    split: str = "test"

    def value(self, group: str, name: str, column: str) -> float | None:
        row = self.row(group, name)
        return row.values.get(column) if row else None

    def row(self, group: str, name: str) -> Row | None:
        """The row of a metric, by its name in metrics.json."""
        label = text(f"metrics.{name}")
        return next((row for row in self.rows if (row.group, row.label) == (group, label)), None)

    @property
    def last(self) -> str:
        """The column of the model that the run is about: tuned before base."""
        return next((name for name in ("tuned", "base") if name in self.columns), "")

    @property
    def baseline(self) -> str:
        return next((name for name in self.columns if name.endswith("-gram")), "")


_METRICS: tuple[tuple[str, Form, Any], ...] = (
    ("loss", _measure(3), min),
    ("hidden_loss", _measure(3), min),
    ("perplexity", _measure(2), min),
    ("bits_per_byte", _measure(3), min),
    ("token_accuracy", _share, max),
    ("follows_accuracy", _share, max),
    ("spans_exact", _share, max),
    ("replaced_precision", _share, max),
    ("replaced_recall", _share, max),
    ("entity_f1", _share, max),
    ("entity_precision", _share, max),
    ("entity_recall", _share, max),
    ("relation_f1", _share, max),
    ("bleu", _measure(1), max),
    ("chrf", _measure(1), max),
    ("rouge_1", _measure(1), max),
    ("rouge_2", _measure(1), max),
    ("rouge_l", _measure(1), max),
    ("answer_f1", _share, max),
    ("exact_match", _share, max),
    ("map_50", _share, max),
    ("map", _share, max),
    ("mean_iou", _share, max),
    ("dice", _share, max),
    ("pixel_accuracy", _share, max),
    ("accuracy", _share, max),
    ("macro_f1", _share, max),
    ("mcc", _measure(3), max),
    ("micro_f1", _share, max),
    ("subset_accuracy", _share, max),
    ("calibration_error", _share, min),
    ("told_apart", _share, None),
    ("frechet", _measure(2), min),
    ("sure", _share, max),
    ("as_asked", _share, max),
    ("rarest", _share, None),
    ("commonest", _share, None),
    ("nearest", _measure(4), None),
    ("recall_at_1", _share, max),
    ("recall_at_10", _share, max),
    ("mrr", _measure(3), max),
    ("spearman", _measure(3), max),
    ("pearson", _measure(3), max),
    ("rmse", _measure(3), min),
    ("mae", _measure(3), min),
    ("r2", _measure(3), max),
)
_MADE: tuple[tuple[str, Form], ...] = (("parameters", short), ("tokens", short), ("training_seconds", duration))
_USE: tuple[tuple[str, Form, Any], ...] = (
    ("megabytes", lambda value: f"{value:,.1f} MB", min), ("tokens_per_second", lambda value: f"{value:,.0f}", max),
)  # fmt: skip


def figures(run: Run) -> Figures:
    """What is known of the run's models; stages that are not there leave their figures out."""
    measured = table(run, "evaluate", "metrics.json")
    compared = table(run, "compress", "compare.json")
    found = Figures(split=measured.get("split", "test"))
    trained = trainings(run)
    held_out, answers = dict(measured.get("models", {})), dict(measured.get("answers", {}))
    use = {list(trained)[-1]: compared["before"], "int8": compared["after"]} if compared and trained else {}
    (answers or held_out).update({"int8": use["int8"]} if use else {})
    grams = [name for name in held_out if name not in ("base", "tuned")]
    for column in (*grams, *(name for name in ("base", "tuned") if name in {*trained, *held_out}), *use):
        found.columns.setdefault(column, _shown(column))
    made = {column: lineage.facts for column, lineage in trained.items()}
    made |= {"int8": {"parameters": list(made.values())[-1].get("parameters")}} if use else {}
    found.rows += _rows("made", made, [(*each, None) for each in _MADE])
    sure = measured.get("intervals", {})
    found.rows += _rows("held_out", held_out, _METRICS, sure.get("models"))
    found.rows += _rows("answers", answers, _METRICS, sure.get("answers")) + _rows("use", use, _USE)
    return found


def _rows(
    group: str,
    models: dict[str, dict[str, Any]],
    wanted: Iterable[tuple[str, Form, Any]],
    sure: dict[str, dict[str, Any]] | None = None,
) -> list[Row]:
    rows = []
    for name, form, best in wanted:
        values = {column: float(found[name]) for column, found in models.items() if found.get(name) is not None}
        label = text(f"metrics.{name}") if group in ("held_out", "answers") else text(f"report.{name}")
        ends = {column: tuple(each[name]) for column, each in (sure or {}).items() if name in each}
        rows += [Row(label, group, values, form, best, ends)] * bool(values)
    return rows


def _shown(column: str) -> str:
    return (
        text("report.gram", order=column.removesuffix("-gram"))
        if column.endswith("-gram")
        else text(f"report.{column}")
    )


def trainings(run: Run) -> dict[str, Lineage]:
    """{"base", "tuned"}: how each was trained. A run that only tunes a foreign model has a base alone."""
    folders = [run.folders[name] for name in ("pretrain", "finetune") if name in run.folders]
    named = zip(("base", "tuned"), folders, strict=False)
    return {column: Lineage.read(folder) for column, folder in named if folder.exists()}


def table(run: Run, stage: str, name: str) -> Any:
    """A JSON file of one of the run's folders; {} where it is not there."""
    path: Path | None = run.folders[stage] / name if stage in run.folders else None
    return files.read_json(path) if path and path.exists() else {}


# --- in the terminal ---------------------------------------------------------------------------------


def summary(run: Run) -> list[str]:
    """The key figures as an aligned table of plain text."""
    found = figures(run)
    lines = [["", *found.columns.values()]]
    previous = ""
    for row in found.rows:
        if row.group != previous and row.group in ("held_out", "answers"):
            lines.append([text(f"report.{row.group}", split=text(f"report.split.{found.split}"))])
        indent = "  " if row.group in ("held_out", "answers") else ""
        lines.append([indent + row.label, *(_with_ends(row, column) for column in found.columns)])
        previous = row.group
    return aligned(lines) if found.rows else []


def _with_ends(row: Row, column: str) -> str:
    ends = row.ends(column)
    return f"{row.cell(column)} ({ends})" if ends else row.cell(column)


def aligned(rows: list[list[str]]) -> list[str]:
    """Columns padded to equal width on a screen, the first to the left; a row of one cell spans the table."""
    full = [row for row in rows if len(row) > 1]
    widths = [max(width(row[at]) for row in full) for at in range(max(map(len, full)))]
    lines = []
    for row in rows:
        padded = [row[0] + " " * (widths[0] - width(row[0]))]
        padded += [" " * (wide - width(cell)) + cell for cell, wide in zip(row[1:], widths[1:], strict=False)]
        lines.append("  ".join(padded).rstrip())
    return lines


def width(line: str) -> int:
    """Columns that a text takes on a screen: Chinese characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in line)
    return len(line) + wide - sum(unicodedata.combining(each) > 0 for each in line)
