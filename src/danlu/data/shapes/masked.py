"""A picture and its mask, as the bytes of their files in base64; the mask holds a class for each pixel."""

from collections.abc import Mapping
from typing import Any

from danlu import pixels
from danlu.data.shapes import picture
from danlu.data.shapes.value import Flaw, Row, required

MARK = "mask"
COLUMNS = ("image", "mask")
OPTIONAL = ("void", "names", "name", "phash")
CLEAN = ("dedup",)
COPIES = 0.995  # correlation from which two pictures are copies: what is small counts here
VOID = 255  # the usual number of pixels of no class


def canonical(row: Mapping[str, Any]) -> Row:
    """The row, once both could be decoded; `void` is the number of pixels that are of no class, `names` is JSON of
    {number: what the class is called}.

    Raises:
        Flaw: one could not; their sizes differ; no pixel has a class.
    """
    required(row, COLUMNS)
    image, mask = (picture.bytes_of(row[name]) for name in COLUMNS)
    void = int(VOID if row.get("void") in (None, "") else row["void"])
    seen = picture.opened(image)
    width, height = seen.size
    try:
        numbers = pixels.classes(mask)
    except pixels.Unreadable as why:
        raise Flaw(why.key, **why.fields) from why
    if numbers.shape != (height, width):
        found = f"{numbers.shape[1]} x {numbers.shape[0]}"
        raise Flaw("mask_size", found=found, wanted=f"{width} x {height}")
    if (numbers == void).all():
        raise Flaw("mask_void", void=void)
    shown = {"image": pixels.written(image), "mask": pixels.written(mask), "void": str(void)}
    shown |= {"names": str(row.get("names") or "{}"), "name": picture.name_of(row, image)}
    return shown | {"phash": picture.phash(seen)}


plain, mapped, group, stored = picture.plain, picture.mapped, picture.group, picture.stored


def loaded(row: Mapping[str, Any]) -> Row:
    known = {name: row.get(name) or "" for name in (*COLUMNS, *OPTIONAL)}
    return known | {"names": known["names"] or "{}"}
