"""A convolutional network for pictures: stages of convolutions, what is strongest anywhere, a label (LeCun 1998).

One dial: convolutions of each stage; 32 channels in the first, twice as many in each that follows.
"""

from danlu.models import convolutional
from danlu.nn.convolutions import ConvolutionsConfig
from danlu.nn.heads import LabelConfig

EMBED = ConvolutionsConfig
STOCK = False
SUITS = "named"  # tasks that name it
DEPTH = 2  # where the recipe leaves it open
DIALS = ("width", "stages")
SIZES = {
    "small": {"depth": 1, "width": 16},
    "base": {"depth": 2, "width": 32},
    "large": {"depth": 3, "width": 64},
}
LAYOUT = convolutional.layout("Cnn", LabelConfig(1, "max"))
_FAMILY = convolutional.staged("cnn", LAYOUT, 32, "plain", DIALS)
preset, to_hf, from_hf = _FAMILY.preset, _FAMILY.to_hf, _FAMILY.from_hf
