"""Samples → pitch and energy, one value every 10 ms: what a voice does besides saying words.

Pitch is the normalised autocorrelation of Boersma (Accurate short-term analysis of the fundamental frequency and the
harmonics-to-noise ratio of a sampled sound, IFA Proceedings 17, 1993): the autocorrelation of a windowed frame is
divided by that of the window, so that a periodic sound peaks at 1 whatever the window does, and the best peak is
refined by a parabola. His path search is left out; instead a frame counts as voiced only where its neighbours agree
with it. So what is measured is sure, and doubtful frames are left unmeasured.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.types import SAMPLE_RATE

POINT = 160  # samples between values; the first lies in the middle of the first 10 ms
LOWEST, HIGHEST = 75.0, 500.0  # Hz
VOICED = 0.45  # height from which a peak is a period (section 6, VoicingThreshold)
SILENT = 0.03  # of the utterance's highest sample; frames below it are not voiced (SilenceThreshold)
OCTAVE = 0.01  # height that an octave up is worth, because every multiple of a period is a period (OctaveCost)
AGREE = 0.25  # octaves between a frame and the median of its neighbours (ours)
FLOOR = -60.0  # dB; lower energies are given as this (ours)

_FRAME = 640  # samples: three periods of the lowest pitch (section 3)
_FFT = 1024  # the frame and the longest lag
_EDGE = 2000.0  # Hz; what lies above sharpens peaks beyond what a parabola through three samples can follow (ours)
_ENERGY = 400  # samples: 25 ms, as the features' windows
_NEIGHBOURS = 5  # frames, the one in question among them


def pitch(wave: Float[Tensor, " samples"]) -> Float[np.ndarray, " points"]:
    """Measure the fundamental frequency in Hz at 5, 15, 25 … ms; NaN where nothing is surely voiced."""
    samples = wave.numpy().astype(np.float64)
    frames = _frames(samples)
    peaks = np.abs(frames).max(1, initial=0.0)
    strength, frequency = _best(_autocorrelation(frames))
    loud = peaks / max(np.abs(samples).max(initial=0.0), 1e-12)
    needed = VOICED + np.maximum(0, 2 - loud * (1 + VOICED) / SILENT)  # section 4, equation 23
    return _agreed(np.where(strength > needed, frequency, np.nan))


def energy(wave: Float[Tensor, " samples"]) -> Float[np.ndarray, " points"]:
    """Measure the mean square of 25 ms around 5, 15, 25 … ms in dB of the utterance's own; gain is not speech."""
    squares = wave.numpy().astype(np.float64) ** 2
    sums = np.concatenate(([0.0], squares.cumsum()))
    centres = np.arange(POINT // 2, len(squares), POINT)
    begin, end = np.maximum(centres - _ENERGY // 2, 0), np.minimum(centres + _ENERGY // 2, len(squares))
    means = (sums[end] - sums[begin]) / (end - begin)
    reference = squares.mean() if len(squares) else 0.0
    return 10 * np.log10(np.maximum(means / max(reference, 1e-20), 10 ** (FLOOR / 10)))


def _frames(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "points frame"]:
    """Cut frames around the points, without their means; what hangs over the ends is zero."""
    padded = np.pad(samples, (_FRAME // 2 - POINT // 2, _FRAME))
    count = len(range(POINT // 2, len(samples), POINT))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::POINT][:count]
    return frames - frames.mean(1, keepdims=True)


def _autocorrelation(frames: Float[np.ndarray, "points frame"]) -> Float[np.ndarray, "points lags"]:
    """Autocorrelate below 2 kHz, 1 at lag 0, over that of the window (section 3, equation 9)."""
    window = np.hanning(_FRAME + 2)[1:-1]
    power = np.abs(np.fft.rfft(frames * window, _FFT)) ** 2
    power[:, round(_EDGE / SAMPLE_RATE * _FFT) :] = 0
    lags = np.fft.irfft(power)[:, : int(SAMPLE_RATE / LOWEST) + 2]
    own = np.fft.irfft(np.abs(np.fft.rfft(window, _FFT)) ** 2)[: lags.shape[1]]
    return lags / np.maximum(lags[:, :1], 1e-12) * (own[0] / own)


def _best(
    correlation: Float[np.ndarray, "points lags"],
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Find each frame's best peak: its height less the cost of its octave, and its frequency in Hz."""
    before, here, after = correlation[:, :-2], correlation[:, 1:-1], correlation[:, 2:]
    bend = 2 * here - before - after
    shift = 0.5 * (after - before) / np.where(bend > 0, bend, 1.0)
    period = np.arange(1, correlation.shape[1] - 1) + shift
    height = here + 0.25 * (after - before) * shift
    lowest, highest = SAMPLE_RATE / HIGHEST, SAMPLE_RATE / LOWEST
    peak = (here > before) & (here >= after) & (period >= lowest) & (period <= highest)
    strength = np.where(peak, height - OCTAVE * np.log2(np.maximum(period, 1) / highest), -np.inf)
    best = strength.argmax(1)[:, None]
    return np.take_along_axis(strength, best, 1)[:, 0], SAMPLE_RATE / np.take_along_axis(period, best, 1)[:, 0]


def _agreed(frequency: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """Leave out what differs from most of its neighbours, or has few."""
    if len(frequency) == 0:
        return frequency
    octaves = np.log2(frequency)
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(octaves, _NEIGHBOURS // 2, constant_values=np.nan), _NEIGHBOURS
    )
    candidate = np.isfinite(octaves) & (np.isfinite(around).sum(1) > _NEIGHBOURS // 2)
    kept = np.full_like(frequency, np.nan)
    median = np.nanmedian(around[candidate], axis=1)
    near = np.abs(octaves[candidate] - median) <= AGREE
    kept[np.flatnonzero(candidate)[near]] = frequency[candidate][near]
    return kept
