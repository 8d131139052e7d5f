"""Files that say where things are in pictures: PASCAL VOC's, one for each picture, and COCO's, one for all of them."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from danlu.data.pictures import is_picture
from danlu.data.shapes.value import Flaw
from danlu.errors import UserError
from danlu.messages.reasons import because

VOC, COCO = ".xml", ".json"
Boxes = list[list[Any]]  # left, top, right, bottom, class


@dataclass(frozen=True)
class Annotations:
    """What files say of pictures: a file of VOC's by the name of its picture, what COCO's say by theirs."""

    files: Mapping[str, Path] = field(default_factory=dict)
    told: Mapping[str, Boxes] = field(default_factory=dict)

    def of(self, picture: Path) -> Boxes:
        """The boxes in a picture.

        Raises:
            Flaw: boxes_missing, no file says anything of it; annotation, the one that does cannot be read.
        """
        if picture.name in self.told:
            return self.told[picture.name]
        if (file := self.files.get(picture.stem)) is None:
            raise Flaw("boxes_missing")
        return _voc(file)

    def lone(self, pictures: Iterable[Path]) -> list[str]:
        """Of what they tell something: what is not among these pictures, by the name of the file that tells it."""
        there = [(path.stem, path.name) for path in pictures]
        stems, names = {stem for stem, _ in there}, {name for _, name in there}
        files = [path.name for stem, path in self.files.items() if stem not in stems]
        return sorted(files + [name for name in self.told if name not in names])


def read(paths: Collection[Path]) -> Annotations:
    """What all annotation files among these say.

    Raises:
        UserError: E210, one of COCO's cannot be read.
    """
    told: dict[str, Boxes] = {}
    for path in (each for each in paths if each.suffix.lower() == COCO):
        told |= _coco(path)
    return Annotations({path.stem: path for path in paths if path.suffix.lower() == VOC}, told)


def annotates(path: Path) -> bool:
    """Whether a file's name says that it holds no picture, but boxes in such."""
    return path.suffix.lower() in (VOC, COCO)


def pictures(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if is_picture(path.name)]


def _voc(path: Path) -> Boxes:
    """Corners of VOC are pixels counted from 1, the last among them: the box reaches to its far side."""
    try:
        root = ElementTree.parse(path).getroot()
        return [_object(each) for each in root.iter("object")]
    except (ElementTree.ParseError, OSError, ValueError, AttributeError, TypeError) as error:
        raise Flaw("annotation", path=path.name, reason=because(error)) from error


def _object(found: ElementTree.Element) -> list[Any]:
    left, top, right, bottom = (float(found.findtext(f"bndbox/{name}") or "")
                                for name in ("xmin", "ymin", "xmax", "ymax"))  # fmt: skip
    return [left - 1, top - 1, right, bottom, (found.findtext("name") or "").strip()]


def _coco(path: Path) -> dict[str, Boxes]:
    """{name of a picture: its boxes}; crowds, which are areas of many things, are left out."""
    try:
        table = json.loads(path.read_bytes())
        kinds = {each["id"]: str(each["name"]) for each in table["categories"]}
        names = {each["id"]: Path(each["file_name"]).name for each in table["images"]}
        found: dict[str, Boxes] = {name: [] for name in names.values()}
        for each in (each for each in table["annotations"] if not each.get("iscrowd")):
            left, top, width, height = map(float, each["bbox"])
            box = [left, top, left + width, top + height, kinds[each["category_id"]]]
            found[names[each["image_id"]]].append(box)
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("E210", path=path, reason=f"COCO: {because(error)}") from error
