"""Which files are the masks of which pictures: one of the same name, in a folder whose name says so."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu.data.pictures import LARGEST, is_picture
from danlu.data.shapes.value import Flaw

_PICTURES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos")
_MASKS = ("masks", "mask", "annotations", "annots", "annot", "labels", "segmentationclass", "gt")
_BESIDE = ("annot", "_annot", "masks", "_masks", "_mask", "-masks", "_labels", "_gt")  # after the pictures' folder
_ENDINGS = ("", "_mask", "-mask", "_L")  # after the picture's name
SEGNET = "annot"  # the folders of SegNet's CamVid end so

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
    """The files that are no mask of another."""
    masks = set(pairs(paths).values())
    return [path for path in paths if path not in masks]


def some(paths: Sequence[Path], count: int) -> list[Path]:
    """The first so many files, and the masks of those that have one."""
    found, chosen = pairs(paths), without(paths)[:count]
    return [*chosen, *(found[path] for path in chosen if path in found)]
