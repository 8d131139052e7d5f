"""A residual network for pictures (He et al. 2016, 1512.03385), with norms over groups of channels of each picture.

The norm of a batch, which the paper has, would let the pictures of a batch see each other.
One dial: blocks of each stage, each of two convolutions; 16 channels in the first, then twice as many.
"""

from danlu.models import convolutional
from danlu.nn.convolutions import ConvolutionsConfig
from danlu.nn.heads import LabelConfig

EMBED = ConvolutionsConfig
STOCK = False
SUITS = "named"  # tasks that name it
DEPTH = 3  # where the recipe leaves it open
DIALS = ("width", "stages")
SIZES = {
    "18": {
        "depth": 2,
        "width": 64,
        "stages": 4,
    },  # table 1, but for the first convolution, which is that of small pictures
    "20": {"depth": 3, "width": 16, "stages": 3},  # and others of 6 n + 2 layers, for 32 pixels: table 6
    "32": {"depth": 5, "width": 16, "stages": 3},
    "44": {"depth": 7, "width": 16, "stages": 3},
    "56": {"depth": 9, "width": 16, "stages": 3},
    "110": {"depth": 18, "width": 16, "stages": 3},
}
LAYOUT = convolutional.layout("GroupResNet", LabelConfig(1, "mean"))
_FAMILY = convolutional.staged("resnet", LAYOUT, 16, "residual", DIALS)
preset, to_hf, from_hf = _FAMILY.preset, _FAMILY.to_hf, _FAMILY.from_hf
