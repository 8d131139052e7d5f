"""The pictures of lessons: drawn as SVG in a page, and with characters in a terminal.

Words in them are keys of the message catalogue (learn.picture.KEY) or stand as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from danlu import charts, messages

Point = tuple[float, float]
_MARKS = "●○▲△■□"
_SHADES = " ░▒▓█"
_ROWS = 14  # height of a plot in a terminal


def word(key: str) -> str:
    """A word in the language in force."""
    found = messages.find(f"learn.picture.{key}")
    return found if isinstance(found, str) else key


@dataclass(frozen=True)
class Curves:
    """Lines over a common axis. `top` cuts what grows beyond it; `dots` draws points instead of a line."""

    series: dict[str, Sequence[Point]]
    x: str
    y: str
    top: float | None = None
    dots: tuple[str, ...] = ()

    @property
    def frame(self) -> tuple[Point, Point]:
        points = [point for line in self.series.values() for point in line]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        high = max(ys) if self.top is None else min(max(ys), self.top)
        return (min(xs), max(xs)), (min(ys), high)

    def svg(self) -> str:
        named = [(word(name), line, name in self.dots) for name, line in self.series.items()]
        return charts.lines(named, *self.frame, x_label=word(self.x), y_label=word(self.y))

    def text(self, width: int) -> str:
        (left, right), (low, high) = self.frame
        across = max(20, min(width, 100) - 10)
        grid = [[" "] * across for _ in range(_ROWS)]
        for mark, line in zip(_MARKS, self.series.values(), strict=False):
            for x, y in line:
                column = round((x - left) / ((right - left) or 1) * (across - 1))
                row = round((min(y, high) - low) / ((high - low) or 1) * (_ROWS - 1))
                grid[_ROWS - 1 - row][column] = mark
        steps = [high - (high - low) * row / (_ROWS - 1) for row in range(_ROWS)]
        drawn = [
            f"{step if step > 1e-3 * high else 0:8.3g} ┤{''.join(row)}" for step, row in zip(steps, grid, strict=True)
        ]
        legend = "   ".join(f"{mark} {word(name)}" for mark, name in zip(_MARKS, self.series, strict=False))
        ends = f"{left:<{across // 2}g}{right:>{across - across // 2}g}"
        return "\n".join([f"{'':9} {word(self.y)}", *drawn, f"{'':9}└{'─' * across}", f"{'':10}{ends}",
                          f"{'':10}{word(self.x)}", f"{'':10}{legend}"])  # fmt: skip


@dataclass(frozen=True)
class Heat:
    """A table of numbers from 0 to 1 as shades: rows and columns have names, or none ("")."""

    values: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]

    def svg(self) -> str:
        return charts.heat([[float(v) for v in row] for row in self.values], self.rows, self.columns)

    def text(self, width: int) -> str:
        cell = 5 if any(self.columns) else 2
        label = max(map(len, self.rows), default=0) + 1
        head = [" " * label + "".join(f"{name[: cell - 1]:<{cell}}" for name in self.columns)] * any(self.columns)
        body = [
            f"{name:>{label - 1}} " + "".join(_shade(v) * (cell - 1) + (" " if cell > 2 else _shade(v)) for v in row)
            for name, row in zip(self.rows, self.values, strict=True)
        ]
        return "\n".join([*head, *body])


def _shade(value: Any) -> str:
    return _SHADES[min(4, max(0, round(float(value) * 4)))]


@dataclass(frozen=True)
class Net:
    """Columns of (name, value) from input to output, and (column, from, to, weight): the lines from one to the next."""

    columns: Sequence[Sequence[tuple[str, str]]]
    lines: Sequence[tuple[int, int, int, str]]

    def svg(self) -> str:
        return charts.net(self.columns, self.lines)

    def text(self, width: int) -> str:
        return "\n".join(f"{number}   " + "   ".join(f"{name} = {value}" if value else name for name, value in column)
                         for number, column in enumerate(self.columns))  # fmt: skip
