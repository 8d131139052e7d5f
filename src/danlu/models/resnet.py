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
LAYOUT = convolutional.layout("GroupResNet", LabelConfig(1, "mean"))
_FAMILY = convolutional.Family("resnet", LAYOUT, EMBED, 16, convolutional.stages, fixed={"kind": "residual"})
preset, to_hf, from_hf = _FAMILY.preset, _FAMILY.to_hf, _FAMILY.from_hf
