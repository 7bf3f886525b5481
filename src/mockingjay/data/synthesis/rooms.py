"""Where it is said: a small room, a microphone's tilt, noise and level, each drawn for its utterance alone.

The direct sound stays at delay zero and the tilt has no phase, so phone times hold after the room.
"""

import numpy as np
from jaxtyping import Float

RATE = 16_000  # samples per second; `core.types.SAMPLE_RATE`, which would import torch


def place(dry: Float[np.ndarray, " samples"], draw: np.random.Generator) -> Float[np.ndarray, " samples"]:
    """Put a dry voice into a room with noise, at a level of its own.

    Drawn: reverberation time 0.1 to 0.5 s, direct-to-reverberant ratio 4 to 20 dB, tilt ±2 dB per octave, noise of
    slope 0 to −6 dB per octave (white to brown) that sways by up to ±3 dB at a few Hz, signal-to-noise ratio 12 to 35
    dB, level −34 to −22 dB of full scale.
    """
    size = 1 << (len(dry) + RATE // 2 - 1).bit_length()
    response = np.fft.rfft(_room(draw), size) * _slope(size, draw.uniform(-2, 2))
    wet = np.fft.irfft(np.fft.rfft(dry, size) * response, size)[: len(dry)]
    wet /= _level(wet[dry != 0])
    noise = _noise(len(dry), draw)
    mixed = wet + noise * 10 ** (-draw.uniform(12, 35) / 20)
    gain = 10 ** (draw.uniform(-34, -22) / 20)
    return mixed * min(gain, 0.98 / float(np.abs(mixed).max()))


def _room(draw: np.random.Generator) -> Float[np.ndarray, " taps"]:
    """Draw an impulse response: direct sound, a few early reflections, a tail of noise that decays exponentially."""
    reverberation = draw.uniform(0.1, 0.5)  # seconds until −60 dB
    time = np.arange(int(reverberation * RATE)) / RATE
    decay = 10 ** (-3 * time / reverberation)
    response = draw.standard_normal(len(time)) * decay * (time > 0.02)
    early = draw.integers(int(0.0015 * RATE), int(0.03 * RATE), size=draw.integers(3, 9))
    response *= 0.5 / np.linalg.norm(response)
    response[early] += draw.uniform(-1, 1, len(early)) * decay[early] * 0.5
    response *= 10 ** (-draw.uniform(4, 20) / 20) / np.linalg.norm(response)
    response[0] = 1.0
    return response


def _noise(samples: int, draw: np.random.Generator) -> Float[np.ndarray, " samples"]:
    """Draw noise of unit level with a slope of its own that sways slowly."""
    size = 1 << (samples - 1).bit_length()
    spectrum = np.fft.rfft(draw.standard_normal(size)) * _slope(size, draw.uniform(-6, 0))
    knots = np.arange(0, samples + RATE // 5, RATE // 5)
    sway = np.interp(np.arange(samples), knots, draw.standard_normal(len(knots)))
    noise = np.fft.irfft(spectrum, size)[:samples] * 10 ** (draw.uniform(0, 3) * np.tanh(sway) / 20)
    return noise / _level(noise)


def _slope(size: int, decibels: float) -> Float[np.ndarray, " bins"]:
    """Gain by frequency for a slope in dB per octave about 1 kHz, flat below 100 Hz."""
    octaves = np.log2(np.maximum(np.arange(size // 2 + 1) * (RATE / size), 100) / 1000)
    return 10 ** (decibels * octaves / 20)


def _level(samples: Float[np.ndarray, " samples"]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(samples**2)))
