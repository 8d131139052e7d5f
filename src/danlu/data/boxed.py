"""Raw files that hold pictures and boxes in them: found by looking."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from danlu import messages
from danlu.data import boxes, clues, pictured, sources, starter
from danlu.data.shapes.value import Flaw
from danlu.errors import UserError

_MOST = 100_000  # files that are looked at
_SIZED = 20  # pictures whose size is looked at
_CLASSES = 1000  # at most
_SIZE = 256  # pixels on each side, at most
_FEW = 5000  # pictures up to which many epochs are quick


def survey(path: Path) -> starter.Found | None:
    """Pictures and what VOC's or COCO's files say of them; None where there are none.

    The lists of VOC's ImageSets tell the splits.
    """
    if not path.is_dir():
        return None
    files = [each for each in islice(sorted(path.rglob("*")), _MOST) if each.is_file()]
    told = [each for each in files if boxes.annotates(each)]
    there = boxes.pictures(files)
    counts, count = _classes(there, told) if told and there else (Counter[str](), 0)
    if not 1 <= len(counts) <= _CLASSES:
        return None
    shapes = Counter(shape for each in there[:_SIZED] if (shape := pictured.shape({"path": each})))
    most = shapes.most_common(1)[0][0]
    shown = most if len(shapes) == 1 else messages.text("init.picture_shapes", most=most)
    said = {"boxes": f"{counts.total():,}", "classes": len(counts), **clues.shares(counts), "shape": shown}
    splits = _splits(path)
    files_of = {"train": path, **splits}
    return starter.Found("object_detection", {}, count, "boxed", said, _settings(count, most), files_of, root=path)


def _classes(there: Sequence[Path], told: Sequence[Path]) -> tuple[Counter[str], int]:
    """How many boxes each class has, and of how many pictures something is said."""
    counts, count = Counter[str](), 0
    try:
        known = boxes.read(told)
    except UserError:
        return counts, 0
    for picture in there:
        try:
            counts.update(str(each[-1]) for each in known.of(picture))
            count += 1
        except Flaw:
            continue
    return counts, count


def _splits(path: Path) -> dict[str, Path]:
    """VOC's lists of pictures to validate and test on."""
    lists = {each.stem.lower(): each for each in sorted(path.rglob(f"{sources.LISTS}/*/*.txt"))}
    named = {split: lists[name] for split in ("valid", "test") for name in starter.SPLITS[split] if name in lists}
    return named if "test" in named else {}


def _settings(count: int, shape: str) -> starter.Settings:
    size = min(_SIZE, *(int(side) for side in shape.split(",")[0].split(" x ")))
    options = {"size": str(size), "crop": str(max(1, size // 8)), "flip": "true", "zoom": "0.25", "colour": "0.3"}
    train = {"epochs": "60.0" if count <= _FEW else "12.0"}
    return {"model": {"arch": '"fcos"', "depth": "2"}, "options": options, "train": train}
