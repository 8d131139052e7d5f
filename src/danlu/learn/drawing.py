"""A picture that stands alone as a file: the page's colours come with it, for light and dark."""

from __future__ import annotations

from pathlib import Path

STYLE = Path(__file__).with_name("drawing.css")


def alone(svg: str) -> str:
    """An inline SVG as a file of its own."""
    head, _, rest = svg.partition(">")
    style = STYLE.read_text("utf-8")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>\n{style}</style>{rest}\n'
