"""Raw files that hold pictures and their classes: found by looking."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from danlu import catalogue, messages, pixels
from danlu.data import clues, pictures, sources, starter
from danlu.errors import UserError

_MOST = 50_000  # pictures whose classes are looked at
_SIZED = 20  # pictures whose size is looked at
_CLASSES = 1000  # at most
_LABELS = ("label", "class", "category", "target", "标签", "类别")
_SHARE = 0.5  # of the files of a folder that must be pictures
_FEW = 20_000  # pictures up to which many epochs are quick
_GROWS = 32  # pixels on a side, from which half of them show something
_KIND = {"L": "init.grey", "RGB": "init.colour"}
_MAKING = {"budget": '"10min"', "batch_tokens": "64"}
_PAINTING = {"epochs": "50.0", "batch_tokens": "64"}
_TEST = re.compile(r"(?<![a-z0-9])(test|t10k)(?![a-z0-9])")


@dataclass(frozen=True)
class _Seen:
    """What the files of a split hold."""

    classes: Counter[str]
    shapes: Counter[str]  # "28 x 28, grey"


def survey(path: Path) -> starter.Found | None:
    """Pictures in folders of their classes, in archives of such folders, or in IDX files; None where there are none."""
    return _of_table(path) or _of_files(path)


def alone(path: Path, task: str) -> starter.Found | None:
    """The same pictures, or some of one class, for a task that needs no classes."""
    found = survey(path) or _of_files(path, fewest=1)
    if found is None:
        return None
    known = catalogue.stated(task, "options") or {}
    if "classes" not in known:
        options = {name: value for name, value in found.settings["options"].items() if name in known}
        return replace(found, task=task, settings={"options": options, "train": _PAINTING})
    told = {"options": {"classes": "true"}} if found.said["classes"] > 1 else {}
    return replace(found, task=task, settings={**told, "train": _MAKING})


def _of_files(path: Path, fewest: int = 2) -> starter.Found | None:
    """Those of so many classes at least; pictures at the root of an archive have none."""
    splits = _of_idx(path) or _of_archives(path) or _of_folders(path)
    if not splits:
        return None
    seen = _seen(splits["train"])
    if not fewest <= len(seen.classes) <= _CLASSES or "" in seen.classes:
        return None
    if not seen.shapes:  # none can be opened: what reads them says why
        return None
    most = seen.shapes.most_common(1)[0][0]
    shown = most if len(seen.shapes) == 1 else messages.text("init.picture_shapes", most=most)
    said = {"classes": len(seen.classes), **clues.shares(seen.classes), "shape": shown}
    files = {split: each[0] for split, each in splits.items()}
    beside = {each[0]: each[1] for each in splits.values() if len(each) > 1}
    count = seen.classes.total()
    return starter.Found(
        "image_classification",
        {},
        count,
        "pictures",
        said,
        _settings(count, most, list(seen.classes)),
        files,
        joined=beside,
    )


def first(paths: Sequence[Path]) -> tuple[int, int]:
    """(pixels on each side, channels) that a network would see of these files, by the first picture in them."""
    for path in paths:
        for record in _records(path):
            if image := _opened(record):
                return min(96, *image.size), 1 if image.mode == "L" else 3
    return 32, 3


def count(path: Path) -> int:
    """Pictures of a file."""
    return 1 if sources.format_of(path) == "picture" else sum(1 for _ in _records(path))


def _settings(count: int, shape: str, classes: Sequence[str]) -> starter.Settings:
    epochs, depth = ("30.0", "2") if count <= _FEW else ("12.0", "1")
    train = {"epochs": epochs, "batch_tokens": "64"}
    grown = {"grow": "0.5"} if min(map(int, re.findall(r"\d+", shape)[:2])) >= _GROWS else {}
    options = {**_seen_anew(shape, classes), **grown}
    return {"model": {"arch": '"cnn"', "depth": depth}, "options": options, "train": train}


def _seen_anew(shape: str, classes: Sequence[str]) -> Mapping[str, str]:
    """Moved by an eighth; turned left and right unless a mirror makes another sign of it, as of digits and letters."""
    side = int(shape.split()[0])
    signs = all(len(label) == 1 for label in classes) or messages.text("init.grey") in shape
    return {"crop": str(max(1, min(side, 96) // (14 if signs else 8)))} | ({} if signs else {"flip": "true"})


# --- which files ------------------------------------------------------------------------------------------


def _of_table(path: Path) -> starter.Found | None:
    """A table that names pictures by their paths, beside them; None where there is none."""
    there = [path] if path.is_file() else sorted(path.glob("*"))
    for table in (each for each in there if each.is_file() and sources.format_of(each) in ("csv", "tsv")):
        (source,) = sources.describe([table])
        rows = clues.rows(source, {}, _MOST)
        seen = (
            next((name for name in rows[0] if _names_pictures(rows[:_SIZED], name, table.parent)), "") if rows else ""
        )
        others = [name for name in rows[0] if name != seen] if seen else []
        label = clues.named(others, _LABELS) or (others[0] if len(others) == 1 else "")
        if not label:
            continue
        classes = Counter(str(row[label]) for row in rows)
        image = _opened({"path": table.parent / str(rows[0][seen])})
        if image is None or not 2 <= len(classes) <= _CLASSES:
            continue
        said = {"classes": len(classes), **clues.shares(classes), "shape": _told(image)}
        settings, keys = (
            _settings(len(rows), _told(image), list(classes)),
            clues.renaming({"image": seen, "label": label}),
        )
        folder = table.parent / str(rows[0][seen]).split("/")[0]
        files, joined = {"train": table}, {table: folder}
        return starter.Found("image_classification", keys, len(rows), "pictures", said, settings, files, joined=joined)
    return None


def _names_pictures(rows: Sequence[Mapping[str, Any]], name: str, folder: Path) -> bool:
    values = [str(row[name]) for row in rows]
    return all("/" in each and pictures.is_picture(each) and (folder / each).is_file() for each in values)


def _of_idx(path: Path) -> dict[str, list[Path]]:
    """MNIST's files: pictures and labels of each split."""
    found = [path] if path.is_file() else sorted(path.glob(f"*{sources.IDX}*"))
    images = [each for each in found if sources.format_of(each) == "idx" and "images" in each.name]
    pairs = [(each, pictures.labels_of(each)) for each in images]
    splits = {"test" if _TEST.search(a.name) else "train": [a, b] for a, b in pairs if b and b.is_file()}
    return splits if "train" in splits else {}


def _of_archives(path: Path) -> dict[str, list[Path]]:
    """Archives by the splits that their names say."""
    there = [path] if path.is_file() else [each for each in sorted(path.glob("*")) if each.is_file()]
    found = [each for each in there if sources.format_of(each) == "archive"]
    splits = starter.by_split(found) if found else {}
    return {split: [each] for split, each in splits.items()} if "train" in splits else {}


def _of_folders(path: Path) -> dict[str, list[Path]]:
    """A folder of classes, or one of them for each split."""
    if not path.is_dir():
        return {}
    inner = {each.name.lower(): each for each in sorted(path.iterdir()) if each.is_dir()}
    splits = {split: [inner[name]] for split, known in starter.SPLITS.items() for name in known if name in inner}
    splits = splits if "train" in splits else {"train": [path]}
    files = list(islice((each for each in splits["train"][0].rglob("*") if each.is_file()), _MOST))
    kept = [each for each in files if pictures.is_picture(each.name)]
    return splits if kept and len(kept) >= _SHARE * len(files) else {}


# --- what they hold ---------------------------------------------------------------------------------------


def _seen(files: Sequence[Path]) -> _Seen:
    classes, shapes = Counter[str](), Counter[str]()
    for record in islice(_records(files[0]), _MOST):
        classes[str(record["label"])] += 1
        if shapes.total() < _SIZED and (told := shape(record)):
            shapes[told] += 1
    return _Seen(classes, shapes)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The raw records there; files that cannot be read have none here, and are told of when they are prepared."""
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            if each.is_file() and pictures.is_picture(each.name):
                yield {"label": each.parent.name, "path": each}
        return
    if sources.format_of(path) not in ("picture", "archive", "idx"):
        return
    file = sources.SourceFile(path, path.name, "", sources.format_of(path), "auto")
    try:
        yield from (raw for _, raw in getattr(pictures, file.format)(file) if isinstance(raw, dict))
    except UserError:
        return


def shape(record: Mapping[str, Any]) -> str:
    """The size of a picture and whether it is grey; nothing of one that cannot be read."""
    image = _opened(record)
    return _told(image) if image else ""


def _told(image: Any) -> str:
    return "{} x {}, {}".format(*image.size, messages.text(_KIND[image.mode]))


def _opened(record: Mapping[str, Any]) -> Any:
    """The picture of a record, None of one that cannot be read."""
    try:
        return pixels.opened(record["image"] if "image" in record else record["path"].read_bytes())
    except (pixels.Unreadable, OSError):
        return None
