"""From framed samples to power spectra and mel bands."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.types import SAMPLE_RATE

Scale = Literal["slaney", "htk", "kaldi"]


def power_spectrum(
    frames: Float[Tensor, "time window"], window: Float[Tensor, " window"], fft: int
) -> Float[Tensor, "time bins"]:
    """Compute |rfft|² of windowed frames, zero-padded to `fft` samples.

    Of several forms this is the fastest that gives the power itself: `abs` takes a root per bin, and summing the pairs
    of `view_as_real` reduces over an axis of two.
    """
    spectrum = torch.fft.rfft(frames * window, fft)
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)


def mel_filters(
    mels: int, fft: int, scale: Scale, low: float = 0.0, high: float = SAMPLE_RATE / 2
) -> Float[Tensor, "bins mels"]:
    """Build triangular filters, evenly spaced on a mel scale between two frequencies in Hz.

    `slaney`: linear to 1 kHz and logarithmic above (Auditory Toolbox 1998), filters of unit area, librosa's default.
    `htk`: 2595·log10(1 + f/700), filters of unit height, torchaudio's default. `kaldi`: the same scale, the filters'
    sides straight in mel instead of Hz.
    """
    bins = np.fft.rfftfreq(fft, 1 / SAMPLE_RATE)
    to_mel, to_hertz = (_slaney, _from_slaney) if scale == "slaney" else (_htk, _from_htk)
    lowest, highest = to_mel(np.array([low, high])).tolist()
    edges = np.linspace(lowest, highest, mels + 2)
    axis = to_mel(bins) if scale == "kaldi" else bins
    if scale != "kaldi":
        edges = to_hertz(edges)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (axis[:, None] - left) / (middle - left)
    falling = (right - axis[:, None]) / (right - middle)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if scale == "slaney":
        filters *= 2 / (right - left)
    return torch.from_numpy(filters.astype(np.float32))


def _htk(hertz: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    return 2595 * np.log10(1 + hertz / 700)


def _from_htk(mel: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney(hertz: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def _from_slaney(mel: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))
