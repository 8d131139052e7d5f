"""Bytes of a picture file -> upright pixels, grey or RGB; what is no picture, or too large a one, is Unreadable.

Only what Pillow reads of these formats is opened. Nothing is decoded before its size is known.
"""

import base64
import binascii
import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MOST = 25_000_000  # pixels of a picture that is decoded
LEAST = 2  # pixels of a side: less is a tracking dot, not a picture
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_WHITE = 255  # what shows through where a picture is transparent
_URI = "data:image/"
_SMALL = 96  # pixels on each side of a picture that is shown beside others, at most
EXACT = ("PNG", "GIF", "BMP", "TIFF", "PPM")  # formats that keep numbers as they are
_KEY = 120, 17  # pixels of one line of a legend, to the right and down
_FONTS = "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "msyh.ttc", "simhei.ttf", "PingFang.ttc"  # of the system
_POINTS, _LATIN = 11, 0x250  # of letters on pictures; the first character that Pillow's own font lacks
_NUMBERS = ("P", "PA")  # modes whose pixels are places in a palette


class Unreadable(Exception):
    """Why a picture is not read: a key under [data.flaw] of the messages, and its fields."""

    def __init__(self, key: str, /, **fields: Any):
        super().__init__(key, fields)
        self.key, self.fields = key, fields


def opened(data: bytes) -> Any:
    """A Pillow image in mode L or RGB, turned as its EXIF says, transparent parts on white, 16 bits as 8.

    Raises:
        Unreadable: picture, it is none or is damaged; picture_size, it has more than MOST pixels, or less than LEAST
            on a side; picture_frames, it moves; picture_mode, its pixels are no grey or colour that is known.
    """
    return _checked(data, _plain)


def _checked(data: bytes, then: Callable[[Any], Any]) -> Any:
    """What is made of a picture whose size is known to be no danger, once it is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, which is checked here, and of metadata, which is not read
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check(image)
            image.load()
            return then(image)
    except Image.DecompressionBombError as error:
        raise Unreadable("picture_size", found=str(error).split("(")[-1].split(")")[0], most=MOST // 10**6) from error
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, MemoryError) as error:
        raise Unreadable("picture", reason=_reason(error)) from error


def _check(image: Any) -> None:
    width, height = image.size
    if width * height > MOST or min(width, height) < LEAST:
        raise Unreadable("picture_size", found=f"{width} x {height}", most=MOST // 10**6)
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise Unreadable("picture_frames", frames=frames)


def _plain(image: Any) -> Any:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, in whatever order of bytes
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode == "F":
        raise Unreadable("picture_mode", found="32-bit float")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA" if image.mode not in _GREY else "LA")
        under = Image.new(image.mode, image.size, (_WHITE,) * len(image.mode))
        image = Image.alpha_composite(under, image) if image.mode == "RGBA" else _grey_on_white(image)
    return image.convert("L" if image.mode in _GREY else "RGB")


def _grey_on_white(image: Any) -> Any:
    from PIL import Image

    grey, alpha = image.split()
    return Image.composite(grey, Image.new("L", image.size, _WHITE), alpha)


def _reason(error: Exception) -> str:
    """What Pillow says, without the address of the buffer it read from."""
    said = str(error).split(" <_io")[0].strip()
    return said or type(error).__name__


def written(data: bytes) -> str:
    """A file's bytes as rows and requests hold them: base64."""
    return base64.b64encode(data).decode("ascii")


def read(value: str) -> bytes:
    """The bytes of a picture in base64, with or without "data:image/...;base64," before it.

    Raises:
        Unreadable: picture, it is neither; an address is none, for nothing is fetched.
    """
    if value.startswith(_URI):
        value = value.partition(",")[2]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unreadable("picture", reason=f"base64: {error}") from error


def png(pixels: "np.ndarray") -> bytes:
    """uint8 pixels (H, W) or (H, W, 3) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def shrunk(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows, each with the picture in it, where there is one, as a PNG file of a few kilobytes in base64."""
    return [{**row, "image": _small(row["image"])} if "image" in row else dict(row) for row in rows]


def _small(value: str) -> str:
    image, file = opened(read(value)), io.BytesIO()
    image.thumbnail((_SMALL, _SMALL))
    image.save(file, "PNG")
    return written(file.getvalue())


# --- masks: pixels that hold the numbers of classes -------------------------------------------------------


def classes(data: bytes) -> "np.ndarray":
    """The numbers in a mask's file, uint8 (H, W): grey values, or places in its palette; turned as its EXIF says.

    Raises:
        Unreadable: as of `opened`; mask_mode, its pixels are colours; mask_lossy, its format blurs numbers; mask_range,
            there is a number above 255.
    """
    import numpy as np
    from PIL import ImageOps

    image = _checked(data, lambda image: image)
    if image.format not in EXACT:
        raise Unreadable("mask_lossy", found=image.format)
    if image.mode not in (*_NUMBERS, *_GREY):
        raise Unreadable("mask_mode", found=image.mode)
    numbers = np.asarray(ImageOps.exif_transpose(image))
    numbers = numbers[..., 0] if numbers.ndim == 3 else numbers  # beside how opaque they are
    if int(numbers.max()) > _WHITE or int(numbers.min()) < 0:
        raise Unreadable("mask_range", found=int(numbers.max()))
    return np.ascontiguousarray(numbers.astype(np.uint8))


def resized(numbers: "np.ndarray", height: int, width: int) -> "np.ndarray":
    """(H, W) -> (height, width): of each new pixel the one that lies under its middle, so that no class is made up."""
    import numpy as np

    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in
                     zip((height, width), numbers.shape, strict=True))  # fmt: skip
    return numbers[rows[:, None], columns]


def coloured(numbers: "np.ndarray") -> bytes:
    """uint8 (H, W) as a PNG file with a palette: its pixels still hold the numbers, and each is seen in its colour.

    The colours are those of PASCAL VOC's masks: bits of the number, turned about, for red, green and blue.
    """
    from PIL import Image

    image = Image.fromarray(numbers)  # grey, until it gets a palette
    image.putpalette([_channel(number >> shift) for number in range(256) for shift in range(3)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _channel(bits: int) -> int:
    """Every third bit of a number, the lowest as the highest of a byte."""
    return sum((bits >> 3 * place & 1) << 7 - place for place in range(3))


def colour(number: int) -> str:
    """How the palette of masks shows a number: "#800000"."""
    return "#" + "".join(f"{_channel(number >> shift):02x}" for shift in range(3))


def keyed(image: Any, mask: bytes, legend: Sequence[tuple[int, str]]) -> bytes:
    """A picture as a PNG file under the colours of its mask, and below it the number and name of each colour."""
    from PIL import Image, ImageDraw

    colours = _checked(mask, lambda mask: mask.convert("RGB"))
    columns = max(1, image.width // _KEY[0])
    rows = -(-len(legend) // columns)
    found = Image.new("RGB", (max(image.width, _KEY[0]), image.height + rows * _KEY[1]), "white")
    found.paste(Image.blend(image.convert("RGB"), colours, 0.5))
    pen = ImageDraw.Draw(found)
    for place, (number, name) in enumerate(legend):
        left, top = place % columns * _KEY[0], image.height + place // columns * _KEY[1]
        pen.rectangle((left + 3, top + 3, left + 13, top + 13), fill=colour(number), outline="black")
        told, font = _letters(f"{number} {name}" if name != str(number) else name, str(number))
        pen.text((left + 18, top + 2), told, fill="black", font=font)
    file = io.BytesIO()
    found.save(file, "PNG")
    return file.getvalue()


def _letters(text: str, otherwise: str) -> tuple[str, Any]:
    """What can be written on a picture of a text, and in which font: Pillow's own knows Latin letters alone.

    For others one of the system is taken; where it has none, what is said otherwise.
    """
    from PIL import ImageFont

    if all(ord(char) < _LATIN for char in text):
        return text, None
    for name in _FONTS:
        with contextlib.suppress(OSError):
            return text, ImageFont.truetype(name, _POINTS)
    return otherwise, None


def framed(image: Any, boxes: Sequence[tuple[Sequence[float], str]], labels: Sequence[str]) -> bytes:
    """A picture as a PNG file with boxes (left, top, right, bottom) and their labels drawn, a colour for each label."""
    from PIL import ImageDraw

    image = image.convert("RGB")
    pen = ImageDraw.Draw(image)
    for (left, top, right, bottom), label in boxes:
        number = labels.index(label) + 1
        colour = tuple(_channel(number >> shift) for shift in range(3))
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(1, min(image.size) // 200))
        told, font = _letters(label, str(number))
        pen.text((left + 2, top + 1), told, fill=colour, font=font)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
