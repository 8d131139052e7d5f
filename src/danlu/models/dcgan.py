"""Two convolutional networks against each other, one that makes pictures and one that judges them (1511.06434).

One dial: convolutions at each size of the picture; 32 channels at its own, twice as many at each smaller one.
"""

from danlu.models import convolutional
from danlu.nn.adversarial import AdversarialConfig
from danlu.nn.heads import LabelConfig

EMBED = AdversarialConfig
STOCK = False
SUITS = "named"  # tasks that name it
DEPTH = 1  # where the recipe leaves it open
DIALS = ("width",)
_WEIGHTS = (
    "generator.first",
    *(f"{part}.{name}" for part in ("generator", "discriminator") for name in ("blocks.{n}.conv", "out")),
)
_NORMS = ("generator.norm", "generator.blocks.{n}.norm", "discriminator.blocks.{n}.norm")
LAYOUT = convolutional.layout("Dcgan", LabelConfig(0, "each"), _WEIGHTS, _NORMS)
_FAMILY = convolutional.Family("dcgan", LAYOUT, EMBED, 32, lambda image: {})
preset, to_hf, from_hf = _FAMILY.preset, _FAMILY.to_hf, _FAMILY.from_hf
