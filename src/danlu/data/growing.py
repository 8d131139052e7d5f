"""Pictures that grow while a training goes on: small ones are cheap, and a network keeps what it learns of them.

Source: Howard 2018 (fast.ai's entry to DAWNBench), Tan & Le 2021 (EfficientNetV2, 2104.00298, section 4).
Shapes: N pictures · C channels · S pixels on each side
"""

import torch.nn.functional as F
from torch import Tensor

STAGES = 3
UNIT = 8  # pixels, which can be halved three times


def side(whole: int, first: float, progress: float, unit: int = UNIT) -> int:
    """Pixels on each side at a point of a training, from 0 to 1; they begin as this share of the whole.

    Sides of smaller ones are multiples of `unit`, so that a network sees all of them.
    """
    stage = min(int(progress * STAGES), STAGES - 1)
    share = first + (1 - first) * stage / (STAGES - 1)
    return min(whole, max(unit, round(share * whole / unit) * unit)) if share < 1 else whole


def shrunk(pixels: Tensor, to: int) -> Tensor:
    """(N, C, S, S), uint8 or fp32 -> fp32 (N, C, to, to), each pixel a mean of those that it stands for."""
    if to == pixels.shape[-1]:
        return pixels
    return F.interpolate(pixels.float(), size=(to, to), mode="bilinear", antialias=True)
