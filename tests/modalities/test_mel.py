"""Our spectrogram is that of transformers' WhisperFeatureExtractor, our filter bank its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from danlu.modalities.mel import Spectrogram, filter_bank, log_mel


def sounds() -> torch.Tensor:
    """Two sounds of two seconds: a rising tone with noise, and clicks in silence (2, 32000) float64."""
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(32_000, dtype=torch.float64) / 16_000
    tone = 0.5 * torch.sin(2 * torch.pi * (200 + 1500 * time) * time)
    tone = tone + 0.01 * torch.randn(32_000, generator=generator, dtype=torch.float64)
    clicks = torch.zeros(32_000, dtype=torch.float64)
    clicks[::4001] = 0.9
    return torch.stack((tone, clicks))


@pytest.mark.parametrize("mels", [80, 128])
def test_the_filter_bank(mels: int) -> None:
    stock = WhisperFeatureExtractor(feature_size=mels)
    ours = filter_bank(Spectrogram(mels)).numpy()
    assert ours.shape == (mels, 201)
    np.testing.assert_allclose(ours, stock.mel_filters.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mels", [80, 128])
def test_the_spectrogram(mels: int) -> None:
    stock = WhisperFeatureExtractor(feature_size=mels)
    waves = sounds()
    expected = stock(list(waves.numpy()), sampling_rate=16_000, return_tensors="np").input_features
    spectrogram = Spectrogram(mels)
    found = log_mel(waves, spectrogram)
    assert found.shape == (2, mels, spectrogram.frames) == expected.shape
    assert np.abs(found.numpy() - expected).max() < 1e-4  # theirs is rounded to fp32
    narrow = log_mel(waves.float(), spectrogram)
    assert (narrow - found).abs().max() < 1e-2
    assert (log_mel(waves, Spectrogram(mels, window=512)) - found).abs().max() > 0.1


def test_longer_sounds_are_cut() -> None:
    waves = sounds().repeat(1, 20)
    assert torch.equal(log_mel(waves, Spectrogram()), log_mel(waves[:, : 30 * 16_000], Spectrogram()))
