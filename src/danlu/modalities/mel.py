"""Sound as Whisper hears it (2212.04356): the logarithm of its power in mel bands, 100 frames a second.

Shapes: B batch · S samples · K frequencies (window / 2 + 1) · M mel bands · F frames
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LINEAR, _KNEE, _ABOVE = 200 / 3, 1000.0, math.log(6.4) / 27  # Hz a mel below the knee; the knee; its logarithm above


@dataclass(frozen=True)
class Spectrogram:
    """How sound is cut and summed; the values are those of all published models but `mels` (large-v3: 128)."""

    mels: int = 80
    rate: int = 16_000  # samples per second
    window: int = 400  # samples
    hop: int = 160  # samples
    seconds: int = 30  # every sound is padded or cut to this

    @property
    def frames(self) -> int:
        return self.seconds * self.rate // self.hop


def filter_bank(spectrogram: Spectrogram) -> Tensor:
    """(M, K) float64: triangles whose corners are even on Slaney's mel scale, each of area 1 (Slaney 1998).

    That scale is linear up to 1000 Hz and logarithmic above.
    """
    top = spectrogram.rate / 2
    corners = _hertz(torch.linspace(0.0, _mel(top), spectrogram.mels + 2, dtype=torch.float64))
    frequencies = torch.linspace(0.0, top, spectrogram.window // 2 + 1, dtype=torch.float64)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0) * 2 / (high - low)


def log_mel(waves: Tensor, spectrogram: Spectrogram) -> Tensor:
    """Samples (B, S) in [-1, 1] -> (B, M, F) in the dtype of the samples, from about -1 to 1.

    Eight powers of ten below the loudest place of each sound is silence.
    """
    length = spectrogram.seconds * spectrogram.rate
    waves = torch.nn.functional.pad(waves[:, :length], (0, max(length - waves.shape[1], 0)))
    shape = torch.hann_window(spectrogram.window, dtype=waves.dtype, device=waves.device)
    bins = torch.stft(waves, spectrogram.window, spectrogram.hop, window=shape, return_complex=True)
    power = bins[..., :-1].abs().square()  # (B, K, F): the last frame is centred on what is not there
    bands = filter_bank(spectrogram).to(waves.dtype).to(waves.device) @ power
    level = bands.clamp(min=1e-10).log10()
    level = torch.maximum(level, level.amax((1, 2), keepdim=True) - 8.0)
    return (level + 4.0) / 4.0


def _mel(hertz: float) -> float:
    """Slaney's scale: 15 mels up to the knee."""
    return hertz / _LINEAR if hertz < _KNEE else _KNEE / _LINEAR + math.log(hertz / _KNEE) / _ABOVE


def _hertz(mels: Tensor) -> Tensor:
    knee = _KNEE / _LINEAR
    return torch.where(mels < knee, mels * _LINEAR, _KNEE * torch.exp(_ABOVE * (mels - knee)))
