"""What `fit` and `evaluate` give back: figures by name, which show themselves."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.api.chart import drawn
from danlu.messages import find, text
from danlu.train.session import METRICS

if TYPE_CHECKING:
    from danlu.stages.evaluate import Judged
    from danlu.train.plan import Plan

Row = dict[str, Any]


class History(Mapping[str, list[float]]):
    """What happened in a training: one list for each name ("loss", "lr", ... of all steps; "valid_loss" and the other
    figures of held-out rows at each look, at the steps in "valid_step").

    `best` is the look whose weights were kept, `plan` what was decided before step 0, `facts` what came out, and
    `folder` where it lies, if it stays.
    """

    def __init__(self, series: Mapping[str, list[float]], plan: Mapping[str, Any], facts: Row, folder: Path | None):
        self._series, self.plan, self.facts, self.folder = dict(series), dict(plan), facts, folder

    @classmethod
    def read(cls, room: Path, plan: "Plan", facts: Row, *, kept: bool) -> "History":
        """The history of a training in its folder."""
        from danlu.api.fitting import TRAINING

        log = room / TRAINING / METRICS
        entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
        return cls(_series(entries), asdict(plan), facts, room if kept else None)

    def __getitem__(self, name: str) -> list[float]:
        return self._series[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    @property
    def best(self) -> dict[str, float]:
        """The figures of the look with the smallest loss; none where no rows were held out."""
        if not self.get("valid_loss"):
            return {}
        place = self["valid_step"].index(self.facts["best_step"])
        return {name: self[name][place] for name in self if name.startswith("valid_")}

    def __repr__(self) -> str:
        seconds, loss = f"{self.facts['training_seconds']:.0f}", f"{self['loss'][-1]:.3f}"
        told = text("api.history", steps=f"{self.facts['steps']:,}", seconds=seconds, loss=loss)
        best = {name.removeprefix("valid_"): value for name, value in self.best.items() if name != "valid_step"}
        return told + (text("api.best", step=self.facts["best_step"], figures=_shown(best)) if best else "")

    def _repr_html_(self) -> str:
        """The curve, for a notebook."""
        held_out = list(zip(self.get("valid_step", []), self.get("valid_loss", []), strict=True))
        axis = text("report.steps")
        return drawn(list(zip(self["step"], self["loss"], strict=True)), held_out, title=repr(self), axis=axis)


def _series(entries: Sequence[Row]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for entry in entries:
        seen = entry.get("validation")
        line = {f"valid_{name}": value for name, value in seen.items()} if seen else entry
        line = line | {"valid_step": entry["step"]} if seen else line
        for name, value in line.items():
            if value is None or isinstance(value, int | float):
                found.setdefault(name, []).append(float("nan") if value is None else value)
    return found


class Report(Mapping[str, float]):
    """How a model did on rows: figures by name.

    `rows` are those that it was asked about and `said` its answers, where it answers rows at once; `count` all rows.
    """

    def __init__(self, figures: Mapping[str, float], whole: "Judged", count: int):
        self._figures, self._whole, self.count = dict(figures), whole, count
        self.rows: Sequence[Row] = whole.rows
        self.said: Sequence[Row] = whole.said

    def __getitem__(self, name: str) -> float:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    @property
    def each(self) -> list[Row]:
        """The figures of each label; none where there are no labels."""
        return self._whole.each

    @property
    def confusion(self) -> dict[str, dict[str, int]]:
        """{true label: {predicted label: rows}}, where a row has one label."""
        pairs = [(row.get("label"), said.get("label")) for row, said in zip(self.rows, self.said, strict=True)]
        labels = sorted({str(label) for pair in pairs for label in pair})
        table = {true: dict.fromkeys(labels, 0) for true in labels}
        for true, found in pairs:
            table[str(true)][str(found)] += 1
        return table

    def errors(self, count: int = 20) -> list[Row]:
        """What was wrong, the worst first: {"given", "wanted", "found", "weight"}."""
        found = (self._whole.task.error(said, row) for said, row in zip(self.said, self.rows, strict=True))
        return sorted((each for each in found if each), key=lambda each: -each["weight"])[:count]

    def __repr__(self) -> str:
        return text("api.report", figures=_shown(self), rows=f"{self.count:,}")


def _shown(figures: Mapping[str, float]) -> str:
    """Figures in one line, by the names that readers know."""
    named = {find(f"metrics.{name}"): value for name, value in figures.items()}
    return " · ".join(f"{name} {value:.4g}" for name, value in named.items() if isinstance(name, str))
