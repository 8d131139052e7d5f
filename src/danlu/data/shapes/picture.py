"""A picture, as the bytes of its file in base64, and the class that it belongs to."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from danlu import pixels
from danlu.data.shapes import labelled
from danlu.data.shapes.value import Flaw, Row, required, text

MARK = "image"
COLUMNS = ("image", "label")
OPTIONAL = ("name", "phash")
CLEAN = ("dedup",)
COPIES = 0.95  # correlation from which two pictures can be copies, unless told (lookalikes.py)


def canonical(row: Mapping[str, Any]) -> Row:
    """The row, once its picture could be decoded, and by what copies of it are found (lookalikes.py).

    Raises:
        Flaw: it could not; or there is no label.
    """
    required(row, COLUMNS)
    data = bytes_of(row["image"])
    seen = {"image": pixels.written(data), "name": name_of(row, data), "phash": phash(opened(data))}
    return seen | {"label": labelled.label(row["label"])}


def bytes_of(given: Any) -> bytes:
    """The bytes of a file that a record holds, as they are or in base64.

    Raises:
        Flaw: they are neither.
    """
    given = given.get("bytes") if isinstance(given, dict) else given  # as data sets in parquet have it
    if not isinstance(given, bytes | str) or not given:
        raise Flaw("picture", reason="0 B" if given in (b"", "") else type(given).__name__)
    try:
        return given if isinstance(given, bytes) else pixels.read(given)
    except pixels.Unreadable as why:
        raise Flaw(why.key, **why.fields) from why


def opened(data: bytes) -> Any:
    """The picture (of Pillow) that bytes of a file are.

    Raises:
        Flaw: they are none that can be read.
    """
    try:
        return pixels.opened(data)
    except pixels.Unreadable as why:
        raise Flaw(why.key, **why.fields) from why


def phash(image: Any) -> str:
    """By what copies of a picture (of Pillow) are found."""
    from danlu.data import lookalikes

    return lookalikes.hashed(image)


def name_of(row: Mapping[str, Any], data: bytes) -> str:
    """What a picture is called: as the record says, else by the first of its digest."""
    return text(row.get("name") or hashlib.sha256(data).hexdigest()[:12], "name")


def plain(row: Row) -> str:
    """What people call it: where it came from, else the first of its digest. Its pixels are no text."""
    return str(row.get("name") or "")


def mapped(row: Row, change: Callable[[str], str]) -> Row:
    return row


def group(row: Row) -> str:
    """Files of the very same bytes stay in one split, whatever they are called."""
    return str(row["image"])


def stored(row: Row) -> dict[str, str]:
    return {**row, "text": plain(row)}


def loaded(row: Mapping[str, Any]) -> Row:
    return {name: row.get(name) or "" for name in (*COLUMNS, *OPTIONAL)}
