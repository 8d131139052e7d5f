"""U-Net for the pixels of pictures (Ronneberger et al. 2015, 1505.04597), with norms over groups of channels.

One dial: convolutions of each stage, down and up; 16 channels in the first, twice as many in each that follows.
"""

from danlu.models import convolutional
from danlu.models.layout import Layout
from danlu.nn.heads import LabelConfig
from danlu.nn.unet import UNetConfig

EMBED = UNetConfig
STOCK = False
SUITS = "named"  # tasks that name it
DEPTH = 2  # where the recipe leaves it open
DIALS = ("width",)
_STAGES = 5  # at most


def family(model_type: str, layout: Layout, stride: int = 1) -> convolutional.Family:
    """A family whose places answer for `stride` pixels on each side, or for those of the first convolution's."""

    def follow(image: int) -> dict[str, int]:
        stem, stages = convolutional.entered(image, _STAGES)
        return {"stem": stem, "stages": stages, "stop": min(stages - 1, max(0, (stride // stem).bit_length() - 1))}

    return convolutional.Family(model_type, layout, UNetConfig, 16, follow, image=96)


def layout(stock: str, head: LabelConfig) -> Layout:
    """Names of tensors, on the way down as those of other convolutional networks are."""
    weights = (*convolutional.CONVOLUTIONS, "embed.back.{n}.conv", "embed.narrow.{n}")
    return convolutional.layout(stock, head, weights, (*convolutional.NORMS, "embed.back.{n}.norm"))


LAYOUT = layout("UNet", LabelConfig(1, "each"))
_FAMILY = family("unet", LAYOUT)
preset, to_hf, from_hf = _FAMILY.preset, _FAMILY.to_hf, _FAMILY.from_hf
