"""Files that hold pictures -> raw records of their bytes, class and name: a picture, an archive of them, or IDX."""

import struct
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from danlu import pixels
from danlu.data.encodings import DAMAGE, open_bytes
from danlu.data.shapes.value import Flaw
from danlu.data.sources import PICTURES, SourceFile
from danlu.errors import UserError
from danlu.messages.reasons import because

Item = tuple[str, dict[str, Any] | Flaw]  # where in the file, "" = the file itself
_LONGEST = 4096  # characters of a path
LARGEST = 64 * 2**20  # bytes of a picture's file
_IDX = {0x803: 3, 0x801: 1}  # magic number: dimensions; unsigned bytes (LeCun's files have no others)


def picture(file: SourceFile) -> Iterator[Item]:
    """One picture; its class is the name of its folder."""
    size = file.path.stat().st_size
    if size > LARGEST:
        yield "", Flaw("picture_file", found=size >> 20, most=LARGEST >> 20)
        return
    yield "", {"image": file.path.read_bytes(), "label": file.path.parent.name, "name": file.name}


def archive(file: SourceFile) -> Iterator[Item]:
    """The pictures of a tar or zip archive, as they come; nothing is unpacked to the disk."""
    read = _zipped if file.path.suffix == ".zip" else _tarred
    try:
        yield from read(file)
    except (*DAMAGE, tarfile.TarError, zipfile.BadZipFile, OSError) as error:
        raise UserError("E210", path=file.name, reason=because(error)) from error


def _tarred(file: SourceFile) -> Iterator[Item]:
    with tarfile.open(file.path, "r|*") as tar:
        for member in tar:
            if member.isfile() and is_picture(member.name):
                found = tar.extractfile(member) if member.size <= LARGEST else None
                yield _member(member.name, member.size, found.read() if found else None)


def _zipped(file: SourceFile) -> Iterator[Item]:
    with zipfile.ZipFile(file.path) as whole:
        for member in whole.infolist():
            if is_picture(member.filename) and not member.is_dir():
                size = member.file_size
                yield _member(member.filename, size, whole.read(member) if size <= LARGEST else None)


def _member(name: str, size: int, data: bytes | None) -> Item:
    if data is None:
        return name, Flaw("picture_file", found=size >> 20, most=LARGEST >> 20)
    return name, {"image": data, "label": PurePosixPath(name).parent.name, "name": name}


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture, and not one that a system hides."""
    path = PurePosixPath(name)
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def fetched(row: Mapping[str, Any], folder: Path, known: Collection[Path]) -> dict[str, Any]:
    """A row of a table with the bytes of the picture that it names, by its path from the table's folder.

    A row that holds the bytes themselves is left as it is.

    Raises:
        Flaw: picture_path, none of the files that the recipe names is there; picture_file, it is too large.
    """
    given = row.get("image")
    if not isinstance(given, str) or "." not in given or given.startswith("data:"):  # base64 has no full stop
        return dict(row)
    path = (folder / given[:_LONGEST]).resolve()
    if path not in known:
        raise Flaw("picture_path", found=given[:100])
    if (size := path.stat().st_size) > LARGEST:
        raise Flaw("picture_file", found=size >> 20, most=LARGEST >> 20)
    return {**row, "image": path.read_bytes(), "name": given}


def hollow(paths: Iterable[Path]) -> list[str]:
    """Folders of classes that hold nothing, among those with pictures beside them."""
    found = [each for path in paths if path.is_dir() for each in sorted(path.rglob("*")) if each.is_dir()]
    return [each.name for each in found if not each.name.startswith((".", "_")) and not any(each.iterdir())]


# --- IDX: the files of MNIST ------------------------------------------------------------------------------


def idx(file: SourceFile) -> Iterator[Item]:
    """The pictures of an IDX file, with the labels of the file beside it; a file of labels has no rows of its own."""
    beside = labels_of(file.path)
    if beside is None:
        return
    if not beside.is_file():
        raise UserError("E202", path=beside)
    images, labels = _array(file.path, file.name), _array(beside, beside.name)
    if len(images) != len(labels):
        raise UserError("E276", where=file.name, pictures=f"{len(images):,}", labels=f"{len(labels):,}")
    for index, (grey, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        yield f"{index}", {"image": pixels.png(grey), "label": label, "name": f"{file.path.name}:{index}"}


def labels_of(path: Path) -> Path | None:
    """The file of labels beside one of pictures, packed or not; None of one that holds labels itself."""
    if "images" not in path.name:
        return None
    named = path.name.replace("images", "labels").replace("idx3", "idx1")
    plain = named.removesuffix(".gz")
    return next((path.with_name(each) for each in (named, plain, f"{plain}.gz") if path.with_name(each).is_file()),
                path.with_name(named))  # fmt: skip


def _array(path: Path, name: str) -> Any:
    """The unsigned bytes of an IDX file.

    Raises:
        UserError: E210, it is none, or holds more or less than it says.
    """
    import numpy as np

    try:
        with open_bytes(path) as raw:
            (magic,) = struct.unpack(">I", raw.read(4))
            shape = struct.unpack(f">{_IDX[magic]}I", raw.read(4 * _IDX[magic]))
            return np.frombuffer(raw.read(), np.uint8).reshape(shape)
    except KeyError as error:
        raise UserError("E210", path=name, reason=f"IDX: {error}") from error
    except (*DAMAGE, struct.error, ValueError, OSError) as error:
        raise UserError("E210", path=name, reason=because(error)) from error
