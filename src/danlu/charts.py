"""The charts of reports and lessons, as inline SVG: colours are the page's style, so they follow light and dark."""

import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
_WIDTH, _HEIGHT = 760, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 12, 40


@dataclass(frozen=True)
class Frame:
    """Data coordinates -> the drawing's."""

    x: Point
    y: Point

    def at(self, point: Point) -> Point:
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        across, up = min(max(across, 0.0), 1.0), min(max(up, 0.0), 1.0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in map(self.at, points))


def curve(train: Sequence[Point], held_out: Sequence[Point], start: float | None, *, labels: dict[str, str]) -> str:
    """Loss over steps: every step faintly, its running mean, the held-out looks as dots, the loss of guessing dashed.

    `labels` names the chart ("title"), its axis ("steps"), the dots ("held_out") and the dashed line ("start").
    """
    mean = smoothed(train)
    drawn = [y for _, y in (*mean, *held_out)]
    top = max([*drawn, *([start] if start and start < 1.35 * max(drawn) else [])])
    frame = Frame((0, max(x for x, _ in (*train, *held_out))), _padded(min(drawn), top))
    parts = [*_grid(frame, labels["steps"]), f'<path class="raw" d="{frame.path(thinned(train, 400))}"/>']
    if start and start <= frame.y[1]:
        left, right = frame.at((frame.x[0], start)), frame.at((frame.x[1], start))
        parts.append(f'<path class="guess" d="M{left[0]:.1f} {left[1]:.1f}H{right[0]:.1f}"/>')
        parts.append(
            f'<text class="note end" x="{right[0]:.1f}" y="{right[1] + 15:.1f}">{escape(labels["start"])}</text>'
        )
    parts.append(f'<path class="train" d="{frame.path(thinned(mean, 240))}"/>')
    if held_out:
        parts.append(f'<path class="held" d="{frame.path(held_out)}"/>')
    for step, loss in held_out:
        x, y = frame.at((step, loss))
        says = f"<title>{escape(labels['held_out'])} · {step:,.0f}: {loss:.3f}</title>"
        parts.append(f'<circle class="held" cx="{x:.1f}" cy="{y:.1f}" r="3.2">{says}</circle>')
    return _svg(parts, _HEIGHT, labels["title"])


def _padded(low: float, high: float) -> Point:
    room = max(high - low, 1e-6) * 0.06
    return low - room, high + room


def _grid(frame: Frame, steps: str) -> list[str]:
    parts = []
    for tick in ticks(*frame.y, 5):
        x, y = frame.at((frame.x[0], tick))
        parts.append(f'<path class="grid" d="M{x:.1f} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="end" x="{x - 8:.1f}" y="{y + 4:.1f}">{tick:g}</text>')
    for tick in ticks(*frame.x, 7):
        x, _ = frame.at((tick, frame.y[0]))
        parts.append(f'<text class="middle" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}">{tick:,.0f}</text>')
    parts.append(f'<text class="note end" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}">{escape(steps)}</text>')
    return parts


def bars(rows: Sequence[tuple[str, float, float, str]]) -> str:
    """One bar per (label, kept, dropped, note): what stayed, and what went in another colour at its end."""
    height, label, note = 27, 176, 150
    most = max([kept + dropped for _, kept, dropped, _ in rows] + [1.0])
    scale = (_WIDTH - label - note) / most
    parts = []
    for number, (name, kept, dropped, beside) in enumerate(rows):
        y = number * height + 4
        parts.append(f'<text x="0" y="{y + 14}">{escape(name)}</text>')
        parts.append(f'<rect class="kept" x="{label}" y="{y}" width="{kept * scale:.1f}" height="19" rx="3"/>')
        if dropped:
            x, wide = label + kept * scale + 1, max(dropped * scale, 2.5)
            parts.append(f'<rect class="dropped" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="19" rx="2"/>')
        end = label + (kept + dropped) * scale + 12
        parts.append(f'<text class="number" x="{end:.1f}" y="{y + 14}">{escape(beside)}</text>')
    return _svg(parts, len(rows) * height + 4, "")


def stacked(parts: Sequence[tuple[str, float, str]]) -> str:
    """Shares of a whole in one bar: (style class, size, what hovering says)."""
    total, x, drawn = sum(size for _, size, _ in parts) or 1.0, 0.0, []
    for style, size, says in parts:
        wide = size / total * _WIDTH
        if size:
            place = f'x="{x:.1f}" width="{max(wide - 2, 1.5):.1f}" height="14" rx="3"'
            drawn.append(f'<rect class="{style}" {place}><title>{escape(says)}</title></rect>')
        x += wide
    return _svg(drawn, 14, "")


def lines(
    series: Sequence[tuple[str, Sequence[Point], bool]], x: Point, y: Point, *, x_label: str, y_label: str
) -> str:
    """(name, points, drawn as dots) each in a colour of its own, over the ranges x and y, names above."""
    frame = Frame(x, _padded(*y))
    parts, left = (
        [*_grid(frame, x_label), f'<text class="note" x="0" y="{_TOP - 22}">{escape(y_label)}</text>'],
        float(_LEFT),
    )
    for number, (name, points, dots) in enumerate(series, 1):
        if dots:
            places = map(frame.at, points)
            parts += [f'<circle class="c{number}" cx="{a:.1f}" cy="{b:.1f}" r="3.2"/>' for a, b in places]
        else:
            parts.append(f'<path class="c{number}" d="{frame.path(thinned(points, 240))}"/>')
        parts.append(f'<rect class="c{number}" x="{left}" y="{_TOP - 54}" width="11" height="11" rx="3"/>')
        parts.append(f'<text class="number" x="{left + 17}" y="{_TOP - 44}">{escape(name)}</text>')
        left += 17 + width(name) + 22
    return _svg(parts, _HEIGHT, "", top=_TOP - 58)


def heat(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """A table of numbers from 0 to 1 as shades of one colour; names of columns stand slanted above."""
    label, head = max(map(width, rows), default=0) + 10, 62 if any(columns) else 4
    size = min(34.0, (_WIDTH - label) / max(1, len(columns)))
    parts = []
    for at, name in enumerate(columns):
        x = label + (at + 0.5) * size
        parts.append(
            f'<text x="{x:.1f}" y="{head - 8}" transform="rotate(-45 {x:.1f} {head - 8})">{escape(name)}</text>'
        )
    for down, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = head + down * size
        parts.append(f'<text class="end" x="{label - 8:.1f}" y="{y + size / 2 + 4:.1f}">{escape(name)}</text>')
        for at, value in enumerate(row):
            says = f"<title>{escape(name)} → {escape(columns[at])}: {value:.2f}</title>" if name else ""
            place = f'x="{label + at * size:.1f}" y="{y:.1f}" width="{size - 1:.1f}" height="{size - 1:.1f}"'
            parts.append(f'<rect class="cell" {place} fill-opacity="{max(value, 0.03):.2f}">{says}</rect>')
    return _svg(parts, head + len(rows) * size, "")


def net(columns: Sequence[Sequence[tuple[str, str]]], joined: Sequence[tuple[int, int, int, str]]) -> str:
    """Neurons as circles in columns, each (name, value); lines (column, from, to, weight) to the next column."""
    height, radius = 84.0 * max(map(len, columns)), 27

    def place(column: int, row: int) -> Point:
        across = 60 + column * (_WIDTH - 120) / max(1, len(columns) - 1)
        return across, height * (row + 0.5) / len(columns[column])

    parts, labels = [], []
    for column, a, b, weight in joined:
        (x1, y1), (x2, y2) = place(column, a), place(column + 1, b)
        parts.append(f'<path class="edge" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')
        share = 0.22  # near the start, where lines that cross are still apart
        x, y = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share
        labels.append(f'<text class="middle halo" x="{x:.1f}" y="{y + 4:.1f}">{escape(weight)}</text>')
    for column, nodes in enumerate(columns):
        for row, (name, value) in enumerate(nodes):
            x, y = place(column, row)
            labels.append(f'<circle class="neuron" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')
            labels.append(f'<text class="middle" x="{x:.1f}" y="{y - 3 if value else y + 4:.1f}">{escape(name)}</text>')
            labels.append(
                f'<text class="middle number" x="{x:.1f}" y="{y + 13:.1f}">{escape(value)}</text>' * bool(value)
            )
    return _svg([*parts, *labels], height, "")


def width(text: str) -> float:
    """About how wide a label is drawn."""
    return sum(12.5 if unicodedata.east_asian_width(char) in "WF" else 7.2 for char in text)


def _svg(parts: Sequence[str], height: float, title: str, top: float = 0.0) -> str:
    named = f"<title>{escape(title)}</title>" if title else ""
    return f'<svg viewBox="0 {top:g} {_WIDTH} {height - top:g}" role="img">{named}{"".join(parts)}</svg>'


# --- numbers -----------------------------------------------------------------------------------------


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two ends, about that many."""
    rough = max(high - low, 1e-9) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next((unit * factor for factor in (1, 2, 2.5, 5) if unit * factor >= rough), unit * 10)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Means of neighbours, so that no more than `most` points are left; the ends stay near where they are."""
    size = math.ceil(len(points) / most)
    groups = [points[at : at + size] for at in range(0, len(points), size)] if points else []
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def smoothed(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """The mean over about a share of the points around each one; early on, where losses fall steeply, without lag."""
    sums = list(itertools.accumulate((y for _, y in points), initial=0.0))
    reach, smooth = round(share * len(points) / 2), []
    for at, (x, _) in enumerate(points):
        before = min(reach, at)
        after = min(before, len(points) - 1 - at)
        smooth.append((x, (sums[at + after + 1] - sums[at - before]) / (before + 1 + after)))
    return smooth
