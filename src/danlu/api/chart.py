"""A curve for a notebook: the report's own, with the few rules of style that it needs there."""

from collections.abc import Sequence

from danlu import charts

_STYLE = (
    "<style>.danlu svg{max-width:760px;font:12px system-ui}.danlu path{fill:none;stroke:#2563eb;stroke-width:2}"
    ".danlu .raw{stroke:#2563eb;opacity:.25;stroke-width:1}.danlu .grid{stroke:#8884;stroke-width:1}"
    ".danlu .guess{stroke:#888;stroke-dasharray:4 4}.danlu .held{stroke:#d97706}.danlu circle.held{fill:#d97706}"
    ".danlu text{fill:currentColor}.danlu .end{text-anchor:end}.danlu .middle{text-anchor:middle}</style>"
)


def drawn(points: Sequence[charts.Point], held_out: Sequence[charts.Point], *, title: str, axis: str) -> str:
    """HTML of a loss over steps, or over rates."""
    labels = {"title": title, "steps": axis, "held_out": "", "start": ""}
    return f'{_STYLE}<div class="danlu">{charts.curve(points, held_out, None, labels=labels)}</div>'
