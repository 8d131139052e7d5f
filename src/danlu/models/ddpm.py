"""A U-Net that finds the noise in pictures, from which new ones are made (DDPM, 2006.11239).

One dial: blocks of each stage, each of two convolutions; 48 channels in the first stage, then twice as many.
"""

from danlu.models import convolutional
from danlu.nn.denoiser import DenoiserConfig
from danlu.nn.heads import LabelConfig

EMBED = DenoiserConfig
STOCK = False
SUITS = "named"  # tasks that name it
DEPTH = 1  # where the recipe leaves it open
DIALS = ("width",)
_PATCHED = 24  # pixels on each side from which four are one to the first stage
_SMALLEST, _STAGES = 3, 3  # pixels on each side of the last stage, at least, and stages, at most


def _follow(image: int) -> dict[str, int]:
    """Patches, and stages while the picture can be halved."""
    patch = 2 if image >= _PATCHED and image % 2 == 0 else 1
    side, stages = image // patch, 1
    while stages < _STAGES and side % 2 == 0 and side // 2 >= _SMALLEST:
        side, stages = side // 2, stages + 1
    return {"stages": stages, "patch": patch}


_WEIGHTS = ("embed.stem", "embed.out", "embed.lower.{n}", "embed.lift.{n}", "embed.label")
_BIASED = (f"{convolutional.BLOCK}.level", "embed.norm", "embed.level.first", "embed.level.second")
LAYOUT = convolutional.layout(
    "Denoiser",
    LabelConfig(0, "each"),
    (*convolutional.CONVOLUTIONS, *_WEIGHTS),
    (*convolutional.NORMS, *_BIASED),
)
_FAMILY = convolutional.Family("ddpm", LAYOUT, EMBED, 48, _follow)
preset, to_hf, from_hf = _FAMILY.preset, _FAMILY.to_hf, _FAMILY.from_hf
