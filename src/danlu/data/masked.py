"""Raw files that hold pictures and masks of their pixels: found by looking."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from danlu import messages, pixels
from danlu.data import masks, pictured, pictures, starter
from danlu.data.shapes.masked import VOID

_LOOKED = 50  # masks whose numbers are looked at
_MOST = 100_000  # files that are looked for masks
_CLASSES = 250  # at most
_SEGNET = 11  # the number of no class in SegNet's CamVid
_SIZE = 192  # pixels on each side, at most
_FEW = 5000  # pictures up to which many epochs are quick


def survey(path: Path) -> starter.Found | None:
    """Pictures in one folder and their masks in another, perhaps for each split; None where there are none."""
    if not path.is_dir():
        return None
    files = [
        each for each in islice(sorted(path.rglob("*")), _MOST) if each.is_file() and pictures.is_picture(each.name)
    ]
    pairs = masks.pairs(files)
    splits = _splits(path, pairs) if pairs else {}
    if not splits:
        return None
    train = [each for each in pairs if splits["train"][0] in each.parents]
    numbers, shapes = _seen([pairs[each] for each in train[:_LOOKED]]), _shapes(train[:_LOOKED])
    void = _void(splits["train"][-1].name, numbers)
    classes = sorted(set(numbers) - {VOID if void is None else void})
    if not 2 <= len(classes) <= _CLASSES or not shapes:
        return None
    most = shapes.most_common(1)[0][0]
    shown = most if len(shapes) == 1 else messages.text("init.picture_shapes", most=most)
    return starter.Found(
        "segmentation",
        {} if void is None else {"void": void},
        len(train),
        "masked",
        {"classes": len(classes), "shape": shown},
        _settings(len(train), most),
        {split: each[0] for split, each in splits.items()},
        joined={each[0]: each[1] for each in splits.values() if len(each) > 1},
        also=masks.naming(path.iterdir()) if splits["train"][0] != path else (),
    )


def _splits(path: Path, pairs: Mapping[Path, Path]) -> dict[str, list[Path]]:
    """{split: the folder of its pictures and that of its masks}, those directly here; or one folder that holds both."""
    folders = dict[Path, Path]()
    for picture, mask in pairs.items():
        folders.setdefault(_below(path, picture), _below(path, mask))
    named = {split: [each, folders[each]] for split, known in starter.SPLITS.items() for each in folders
             if each.name.lower() in known}  # fmt: skip
    found = named if "train" in named else {"train": [next(iter(folders)), next(iter(folders.values()))]}
    if "train" not in named and len(folders) > 1:
        return {"train": [path]}
    return {split: list(dict.fromkeys(each)) for split, each in found.items()}


def _below(path: Path, file: Path) -> Path:
    """The folder directly below a path in which a file lies."""
    return path / file.relative_to(path).parts[0]


def _seen(files: Sequence[Path]) -> Counter[int]:
    """How many of the masks have each number; masks that cannot be read are told of when they are prepared."""
    found = Counter[int]()
    for each in files:
        try:
            found.update(np.unique(pixels.classes(each.read_bytes())).tolist())
        except (pixels.Unreadable, OSError):
            continue
    return found


def _void(folder: str, numbers: Mapping[int, int]) -> int | None:
    """The number of no class, where it is not the usual one: SegNet's is 11; masks in black and white have none."""
    if folder.lower().endswith(masks.SEGNET) and max(numbers, default=0) == _SEGNET:
        return _SEGNET
    return VOID - 1 if set(numbers) == {0, VOID} else None


def _shapes(files: Sequence[Path]) -> Counter[str]:
    return Counter(shape for each in files if (shape := pictured.shape({"path": each})))


def _settings(count: int, shape: str) -> starter.Settings:
    size = min(_SIZE, *(int(side) for side in shape.split(",")[0].split(" x ")))
    options: dict[str, Any] = {"size": str(size), "crop": str(max(1, size // 10)), "flip": "true", "zoom": "0.25"}
    options |= {"colour": "0.3", "dice": "1.0", "balance": "0.5"}
    train = {"epochs": "60.0" if count <= _FEW else "12.0", "average": "0.99"}
    return {"model": {"arch": '"unet"', "depth": "2"}, "options": options, "train": train}
