"""Which files are the masks of which pictures: one of the same name, in a folder whose name says so."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu.data.pictures import LARGEST, is_picture
from danlu.data.shapes.value import Flaw
from danlu.data.sources import CLASSES
from danlu.errors import UserError
from danlu.messages.reasons import because

_PICTURES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos")
_MASKS = ("masks", "mask", "annotations", "annots", "annot", "labels", "segmentationclass", "gt")
_BESIDE = ("annot", "_annot", "masks", "_masks", "_mask", "-masks", "_labels", "_gt")  # after the pictures' folder
_ENDINGS = ("", "_mask", "-mask", "_L")  # after the picture's name
SEGNET = "annot"  # the folders of SegNet's CamVid end so

_NUMBERED = re.compile(r"(\d+)[\s,:;=]+(.+)")  # "3: road"

_Place = tuple[str, str]  # a folder and a name without its ending


def pairs(paths: Iterable[Path]) -> dict[Path, Path]:
    """{picture: its mask} among files; pictures without one are not there.

    images/a.jpg has masks/a.png, train/a.jpg has trainannot/a.png; also where such a folder stands further up.
    """
    known = {_place(path.parent, path.stem): path for path in paths if is_picture(path.name)}
    found = {path: mask for path in known.values() if (mask := _mask(path, known))}
    masks = set(found.values())
    return {path: mask for path, mask in found.items() if path not in masks}


def _place(folder: Path, name: str) -> _Place:
    return folder.as_posix().lower(), name


def _mask(path: Path, known: Mapping[_Place, Path]) -> Path | None:
    there = (known.get(_place(folder, path.stem + end)) for folder in _folders(path.parent) for end in _ENDINGS)
    return next((each for each in there if each), None)


def _folders(folder: Path) -> Iterator[Path]:
    """Where the mask of a picture in this folder may lie, the nearest first."""
    for at in reversed(range(1, len(folder.parts))):
        name, above, below = folder.parts[at], Path(*folder.parts[:at]), folder.parts[at + 1 :]
        names = [*(name + end for end in _BESIDE), *(_MASKS if name.lower() in _PICTURES else ())]
        yield from (above.joinpath(each, *below) for each in names)


def joined(row: Mapping[str, Any], mask: Path | None) -> dict[str, Any]:
    """A picture's record with the bytes of its mask.

    Raises:
        Flaw: mask_missing, it has none; picture_file, the mask's file is too large.
    """
    if mask is None:
        raise Flaw("mask_missing")
    if (size := mask.stat().st_size) > LARGEST:
        raise Flaw("picture_file", found=size >> 20, most=LARGEST >> 20)
    return {**row, "mask": mask.read_bytes()}


def without(paths: Collection[Path]) -> list[Path]:
    """The files that are no mask of another, and do not say how classes are called."""
    others = {*pairs(paths).values(), *naming(paths)}
    return [path for path in paths if path not in others]


def naming(paths: Iterable[Path]) -> list[Path]:
    """The files that say how classes are called, by their own names."""
    return [path for path in paths if path.name.lower().endswith(CLASSES)]


def names(paths: Iterable[Path]) -> dict[str, str]:
    """{number of a class: its name}, as the first of the files has it that say so; {} where none does.

    A line names a class: the number stands before it, or is that of the line, from 0; of class_dict.csv the first
    column is the name, and its first line none.

    Raises:
        UserError: E210, such a file is no text.
    """
    path = min(naming(paths), key=_preferred, default=None)
    if path is None:
        return {}
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("E210", path=path, reason=because(error)) from error
    if path.suffix == ".csv":
        lines = [line.split(",")[0].strip() for line in lines[1:]]
    told = [(each[1], each[2]) for line in lines if (each := _NUMBERED.match(line))]
    found = dict(told) if len(told) == len(lines) else {str(number): line for number, line in enumerate(lines)}
    often = Counter(found.values())
    return {number: name if often[name] == 1 else f"{name} {number}" for number, name in found.items()}


def _preferred(path: Path) -> tuple[int, str]:
    place = next(place for place, end in enumerate(CLASSES) if path.name.lower().endswith(end))
    return place, path.as_posix()


def some(paths: Sequence[Path], count: int) -> list[Path]:
    """The first so many files, the masks of those that have one, and what classes are called."""
    found, chosen = pairs(paths), without(paths)[:count]
    return [*chosen, *(found[path] for path in chosen if path in found), *naming(paths)]
