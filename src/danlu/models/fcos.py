"""A light detector without anchors (FCOS, Tian et al. 2019, 1904.01355): U-Net's way back ends at every eighth pixel.

One dial: convolutions of each stage, down and up; 16 channels in the first, twice as many in each that follows.
"""

from danlu.models import unet
from danlu.nn.heads import LabelConfig

EMBED, STOCK, DEPTH = unet.EMBED, unet.STOCK, unet.DEPTH
SUITS = "named"  # tasks that name it
DIALS = ("width",)
LAYOUT = unet.layout("FCOS", LabelConfig(5, "each", answer="boxes"))
_STRIDE = 8  # pixels from one place that answers to the next
_FAMILY = unet.family("fcos", LAYOUT, _STRIDE)
preset, to_hf, from_hf = _FAMILY.preset, _FAMILY.to_hf, _FAMILY.from_hf
