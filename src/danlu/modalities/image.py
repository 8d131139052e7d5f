"""Pictures: uint8 pixels of one size and number of channels; mean and deviation are those of the rows to train on.

Shapes: B pictures · C channels, 1 (grey) or 3 (RGB) · S pixels on each side. A picture takes one place of a batch.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from danlu import files, pixels
from danlu.errors import UserError
from danlu.messages import text
from danlu.messages.reasons import because
from danlu.modalities.modality import Batch, Example, Modality, Word

if TYPE_CHECKING:
    import torch

_LOOKED = 1000  # pictures that decide on the size
_LARGEST = 96  # pixels on each side, where the recipe does not say
_BILINEAR = 2  # Pillow's number of the filter, as preprocessor_config.json has it
_RANGE = 255.0
_LEAST_STD = 1e-3  # of a channel that is the same everywhere


class Image(Modality):
    """Pixels of `size` on each side, stretched to a square as transformers' ViTImageProcessor does it."""

    column: ClassVar = "image"
    file: ClassVar = "preprocessor_config.json"
    kind, encoder = "image", "pillow"
    counted: ClassVar = "pictures"
    fitted_by: ClassVar = ("size",)
    vocab_size = pad_id = 0  # there are no tokens

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], resample: int = _BILINEAR):
        self.size, self.mean, self.std, self.resample = size, tuple(mean), tuple(std), resample
        self.control = dict[str, int]()

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def sizes(self) -> dict[str, int]:
        """What a network must know of its pictures."""
        return {"image": self.size, "channels": self.channels}

    @classmethod
    def fit(cls, values: Iterable[Any], **options: Any) -> Self:
        """Learn channels, mean and deviation from pictures to train on, and their size where `size` is 0.

        Grey where all of them are; as large as the smaller sides of the middle one of the first 1,000, at most 96.
        """
        values = iter(values)
        first = [_image(value) for value in islice(values, _LOOKED)]
        size = options.get("size") or min(_LARGEST, median_low([min(each.size) for each in first]))
        sums, squares, count, colour = np.zeros(3), np.zeros(3), 0, False
        for image in chain(first, map(_image, values)):
            colour = colour or image.mode == "RGB"
            numbers = np.asarray(_resized(image, size, _BILINEAR), np.float64).reshape(size * size, -1) / _RANGE
            sums += numbers.mean(0)
            squares += (numbers**2).mean(0)
            count += 1
        mean = sums / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        kept = 3 if colour else 1
        return cls(size, _rounded(mean[:kept]), _rounded(np.maximum(std[:kept], _LEAST_STD)))

    def adjusted(self, **options: Any) -> Self:
        """Pictures of `size` pixels on each side, where that is not 0."""
        return type(self)(options.get("size") or self.size, self.mean, self.std, self.resample)

    def length(self, context: int) -> int:
        """One place, whatever the context."""
        return 1

    @staticmethod
    def opened(value: str) -> Any:
        """The upright picture that a file's bytes in base64 are.

        Raises:
            UserError: as of `encode`.
        """
        return _image(value)

    def encode(self, value: Any) -> np.ndarray:
        """Pixels uint8 (C, S, S) of a file's bytes in base64, with or without "data:image/...;base64," before it.

        Raises:
            UserError: E277, it is no picture, or too large a one.
        """
        image = _resized(_image(value), self.size, self.resample)
        array = np.asarray(image.convert("L" if self.channels == 1 else "RGB"))
        return np.ascontiguousarray(array.reshape(self.size, self.size, self.channels).transpose(2, 0, 1))

    @staticmethod
    def read(written: str) -> str:
        """The value that stands for a picture: of a file's name its bytes, else what was given.

        Raises:
            UserError: E278, there is no such file, or it is no picture.
        """
        if written.startswith("data:"):
            return written
        try:
            data = Path(written).read_bytes()
            pixels.opened(data)
        except OSError as error:
            raise UserError("E278", path=written[:200] or '""', reason=because(error)) from error
        except pixels.Unreadable as why:
            reason = why.fields["reason"] if why.key == "picture" else text(f"data.flaw.{why.key}", **why.fields)
            raise UserError("E278", path=written[:200], reason=reason) from why
        return pixels.written(data)

    def decode(self, encoded: Any) -> str:
        """Pixels uint8 (C, S, S) as a PNG file in base64."""
        array = np.asarray(encoded, np.uint8).transpose(1, 2, 0)
        return pixels.written(pixels.png(array[..., 0] if self.channels == 1 else np.ascontiguousarray(array)))

    def scaled(self, batch: Batch) -> Batch:
        """The batch with pixel_values (B, C, S, S) as networks read them: from 0 to 255 -> fp32, standardised."""
        import torch

        values = batch["pixel_values"]
        mean, std = (torch.tensor(each, device=values.device)[:, None, None] for each in (self.mean, self.std))
        return {**batch, "pixel_values": (values.float() / _RANGE - mean) / std}

    def words(self, example: Example) -> list[Word]:
        """A picture is one piece."""
        return [Word("image", (0,))]

    def blanks(self, example: Example) -> list[Example]:
        """The mean of all pictures to train on, in every place."""
        mean = np.round(np.array(self.mean)[:, None, None] * _RANGE).astype(np.uint8)
        return [{**example, "pixel_values": np.broadcast_to(mean, (self.channels, self.size, self.size)).copy()}]

    def show(self, encoded: Iterable[int]) -> list[str]:
        """A picture has no words to be shown."""
        return ["—" for _ in encoded]

    def token_bytes(self) -> list[int]:
        """No id stands for bytes of text."""
        return [0]

    def collate(self, examples: Sequence[Example]) -> Batch:
        """input_ids, segment_ids and labels (B, 1), pixel_values (B, C, S, S)."""
        import torch

        batch = {name: torch.from_numpy(np.stack([row[name] for row in examples])) for name in examples[0]}
        return batch | {"segment_ids": torch.ones_like(batch["input_ids"])}

    def embed(self, dim: int) -> "torch.nn.Module":
        """All of a picture as one vector: pixel_values (B, C, S, S) -> (B, 1, dim)."""
        from danlu.nn.stems import Patches, PatchesConfig

        return Patches(PatchesConfig(self.size, self.size, self.channels, tokens=0, places="none"), dim)

    def save(self, folder: Path, *, typed: bool = False) -> None:
        """Write preprocessor_config.json, in the words of ViTImageProcessor."""
        said = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True, "size": {"height": self.size, "width": self.size}, "resample": self.resample,
            "do_rescale": True, "rescale_factor": 1 / _RANGE,
            "do_normalize": True, "image_mean": list(self.mean), "image_std": list(self.std),
        }  # fmt: skip
        files.write_json(folder / self.file, said)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The pictures of a folder, danlu's or one of a ViT.

        Raises:
            UserError: E301, none there, or damaged; E320, they are prepared in another way.
        """
        try:
            said = json.loads((folder / cls.file).read_text("utf-8"))
            size, scale = said["size"], said.get("rescale_factor", 1 / _RANGE)
            for key in ("do_resize", "do_rescale"):
                _only(folder, key, said.get(key, True), True)
            _only(folder, "do_center_crop", bool(said.get("do_center_crop")), False)
            _only(folder, "rescale_factor", abs(scale * _RANGE - 1) < 1e-6, True)
            size = {"height": size, "width": size} if isinstance(size, int) else size
            _only(folder, "size", "height" in size and size["height"] == size.get("width"), True)
            plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
            known = said if said.get("do_normalize", True) else plain
            return cls(size["height"], known["image_mean"], known["image_std"], said.get("resample", _BILINEAR))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError("E301", path=folder / cls.file, reason=because(error)) from error


def _only(folder: Path, key: str, found: bool, carried: bool) -> None:
    if found != carried:
        raise UserError("E320", where=str(folder / Image.file), key=key, value=str(found))


def _image(value: str) -> Any:
    """The picture that a value stands for; E277 where it is none."""
    try:
        return pixels.opened(pixels.read(value))
    except pixels.Unreadable as why:
        raise UserError("E277", reason=text(f"data.flaw.{why.key}", **why.fields)) from why


def _resized(image: Any, size: int, resample: int) -> Any:
    return image if image.size == (size, size) else image.resize((size, size), resample)


def _rounded(numbers: np.ndarray) -> list[float]:
    """With as many digits as tell pictures apart: sums of another order end in other bits."""
    return [round(float(each), 6) for each in numbers]
