"""A picture, as the bytes of its file in base64, and boxes around what is in it, each with its class."""

import json
import math
from collections.abc import Mapping
from typing import Any

from danlu import pixels
from danlu.data.shapes import labelled, picture
from danlu.data.shapes.value import Flaw, Row, required

MARK = "boxes"
COLUMNS = ("image", "boxes")
OPTIONAL = ("name", "phash")
CLEAN = ("dedup",)
COPIES = 0.995  # correlation from which two pictures are copies: what is small counts here
_BOX = 5  # left, top, right, bottom in pixels, and the class


def canonical(row: Mapping[str, Any]) -> Row:
    """The row, once its picture could be decoded; boxes as JSON, for rows are texts.

    Raises:
        Flaw: it could not; a box is none, is empty, or does not lie in the picture.
    """
    required(row, COLUMNS)
    data = picture.bytes_of(row["image"])
    seen = picture.opened(data)
    boxes = json.dumps([_box(each, *seen.size) for each in _listed(row["boxes"])])
    name = picture.name_of(row, data)
    return {"image": pixels.written(data), "boxes": boxes, "name": name, "phash": picture.phash(seen)}


def _listed(given: Any) -> list[Any]:
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise Flaw("boxes", found=str(given)[:60])
    return found


def _box(given: Any, width: int, height: int) -> list[Any]:
    """A box that lies in a picture of this size; a pixel beyond its edge is taken as the edge."""
    whole = isinstance(given, list | tuple) and len(given) == _BOX
    if not whole or not all(isinstance(each, int | float) and math.isfinite(each) for each in given[:4]):
        raise Flaw("boxes", found=str(given)[:60])
    left, top, right, bottom = (float(each) for each in given[:4])
    shown = f"[{left:g}, {top:g}, {right:g}, {bottom:g}]"
    if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
        raise Flaw("box_outside", found=shown, size=f"{width} x {height}")
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if left >= right or top >= bottom:
        raise Flaw("box_empty", found=shown)
    return [left, top, right, bottom, labelled.label(given[4])]


plain, mapped, group, stored = picture.plain, picture.mapped, picture.group, picture.stored


def loaded(row: Mapping[str, Any]) -> Row:
    return {name: row.get(name) or "" for name in (*COLUMNS, *OPTIONAL)}
