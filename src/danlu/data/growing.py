"""Pictures that grow while a training goes on: small ones are cheap, and a network keeps what it learns of them.

Source: Howard 2018 (fast.ai's entry to DAWNBench), Tan & Le 2021 (EfficientNetV2, 2104.00298, section 4).
Shapes: N pictures · C channels · S pixels on each side
"""

import torch.nn.functional as F
from torch import Tensor

STAGES = 3
_UNIT = 8  # pixels of whose multiples smaller sides are, so that halving them leaves no pixel over


def side(whole: int, first: float, progress: float) -> int:
    """Pixels on each side at a point of a training, from 0 to 1; they begin as this share of the whole."""
    stage = min(int(progress * STAGES), STAGES - 1)
    share = first + (1 - first) * stage / (STAGES - 1)
    return min(whole, max(_UNIT, round(share * whole / _UNIT) * _UNIT)) if share < 1 else whole


def shrunk(pixels: Tensor, to: int) -> Tensor:
    """(N, C, S, S), uint8 or fp32 -> fp32 (N, C, to, to), each pixel a mean of those that it stands for."""
    if to == pixels.shape[-1]:
        return pixels
    return F.interpolate(pixels.float(), size=(to, to), mode="bilinear", antialias=True)
