"""From magnitudes back to samples.

D. Griffin, J. Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984.

A spectrogram of any phases belongs to no signal; taking the nearest signal's phases and the wanted magnitudes in turn
brings the two together, the faster the better the phases were that one began with.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor

from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.frontends.framing import Framing


@dataclass(frozen=True, slots=True)
class ShortTime:
    """A short-time Fourier transform under a Hann window, frame t centred on sample t · hop as frontends have it."""

    window: int  # samples, even
    hop: int  # samples
    fft: int  # samples, at least the window

    def analyse(self, waves: Waves) -> Frames:
        """Transform a batch; real parts of all bins come first, then imaginary ones.

        Raises:
            DataError: An utterance has no more than half a window of samples.
        """
        hann = torch.hann_window(self.window, device=waves.samples.device)

        def spectrum(frames: Float[Tensor, "time window"]) -> Float[Tensor, "time parts"]:
            values = torch.fft.rfft(frames * hann, self.fft)
            return torch.cat([values.real, values.imag], 1)

        return Framing(self.window, self.hop, centre=True).measure(waves, spectrum)

    def spectrum(self, samples: Float[Tensor, " samples"]) -> Complex[Tensor, "time bins"]:
        """Transform one utterance.

        Raises:
            DataError: It has no more than half a window of samples.
        """
        return torch.complex(*self.analyse(Waves.pad([samples])).values[0].chunk(2, 1))

    def signal(self, spectrum: Complex[Tensor, "time bins"], samples: int) -> Float[Tensor, " samples"]:
        """Find the signal whose spectrum is nearest in the mean square, by overlapping and adding."""
        hann = torch.hann_window(self.window, device=spectrum.device)
        frames = torch.fft.irfft(spectrum, self.fft)[:, : self.window] * hann
        total = self._overlap(frames) / self._overlap(hann.square().expand_as(frames)).clamp_min(1e-8)
        total = total[self.window // 2 :][:samples]
        return F.pad(total, (0, samples - len(total)))

    def phases(self, frequencies: Float[Tensor, "time bins"]) -> Float[Tensor, "time bins"]:
        """Add up instantaneous frequencies, in radians a hop beyond each bin's centre; the first frame's phase is 0."""
        bins = torch.arange(frequencies.shape[1], device=frequencies.device)
        steps = frequencies + self.advance(bins)
        return torch.cat([torch.zeros_like(steps[:1]), steps[1:].cumsum(0)])

    def advance(self, bins: Tensor) -> Float[Tensor, " bins"]:
        """Radians by which the phase of a sine at each bin's centre grows in a hop."""
        return (bins * self.hop % self.fft) * (2 * math.pi / self.fft)

    def _overlap(self, frames: Float[Tensor, "time window"]) -> Float[Tensor, " samples"]:
        length = (len(frames) - 1) * self.hop + self.window
        added = F.fold(frames.T[None], (1, length), (1, self.window), stride=(1, self.hop))
        return added.flatten()


def griffin_lim(
    magnitude: Float[Tensor, "time bins"],
    phase: Float[Tensor, "time bins"],
    transform: ShortTime,
    samples: int,
    iterations: int,
) -> Float[Tensor, " samples"]:
    """Find a signal of nearly these magnitudes.

    Args:
        magnitude: Wanted.
        phase: Begun with, in radians.
        transform: Of which magnitude and phase are.
        samples: Length of the signal; it must have as many frames.
        iterations: Rounds after the first guess.
    """
    signal = transform.signal(torch.polar(magnitude, phase), samples)
    for _ in range(iterations):
        signal = transform.signal(torch.polar(magnitude, transform.spectrum(signal).angle()), samples)
    return signal


def spectral_error(
    signal: Float[Tensor, " samples"], magnitude: Float[Tensor, "time bins"], transform: ShortTime
) -> Float[Tensor, ""]:
    """Measure how far a signal's magnitudes are from the wanted ones, as a share of these (spectral convergence)."""
    found = transform.spectrum(signal).abs()
    return torch.linalg.vector_norm(found - magnitude) / torch.linalg.vector_norm(magnitude)
