"""Mel-frequency cepstral coefficients with derivatives: what the WaveNet autoencoders read.

Davis and Mermelstein 1980; Chorowski et al. 2019 (arXiv 1901.08810): 13 coefficients and their first and second
derivatives every 10 ms. Bands, transform and units are librosa's, without its clipping 80 dB below the utterance's
loudest band; they and the normalisation are ours.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.frontends.deltas import DeltaWidth, polynomial_deltas
from mockingjay.encoders.frontends.framing import Framing, Hop, Transform, Window
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.normalise import Normalisation, Normalise, leaks
from mockingjay.encoders.frontends.spectrum import mel_filters, power_spectrum


class MFCC(Frontend):
    """The cosine transform of mel bands in decibels, its first coefficients."""

    class Config(Table):
        """Defaults are the WaveNet autoencoder's 39 dimensions."""

        kind: Literal["mfcc"] = "mfcc"
        coefficients: int = Field(default=13, ge=1, le=1024)
        """Cepstral coefficients kept, at most the bands."""
        mels: int = Field(default=80, ge=1, le=1024)
        """Mel bands, on Slaney's scale."""
        window: Window = 400
        """Samples under the Hann window; even."""
        fft: Transform = 512
        """Samples of the transform, at least the window."""
        hop: Hop = 160
        """Samples from one frame to the next."""
        floor: float = Field(default=1e-10, gt=0)
        """Least power of a band."""
        deltas: int = Field(default=2, ge=0, le=2)
        """Orders of time derivatives appended."""
        delta_width: DeltaWidth = 9
        """Frames a derivative is fitted to; odd."""
        normalise: Normalisation = "utterance"
        """Mean and variance normalisation over each utterance, over the corpus, or none."""

    filters: Float[Tensor, "bins mels"]
    cosines: Float[Tensor, "mels dim"]
    hann: Float[Tensor, " window"]

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        least = max(config.delta_width if config.deltas else 1, 2 if config.normalise == "utterance" else 1)
        self.framing = Framing(config.window, config.hop, True, least)
        self.dim = config.coefficients * (1 + config.deltas)
        self.grid, self.receptive = self.framing.grid, self.framing.receptive
        self.register_buffer("filters", mel_filters(config.mels, config.fft, "slaney"), persistent=False)
        self.register_buffer("cosines", cosines(config.mels, config.coefficients), persistent=False)
        self.register_buffer("hann", torch.hann_window(config.window), persistent=False)
        self.normalise = Normalise(config.normalise, self.dim)
        self.leaks = leaks(config.normalise)

    def forward(self, waves: Waves) -> Frames:
        """Compute cepstral frames.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
            ConfigError: Normalisation is global and was not fitted.
        """
        return self.normalise(self._features(waves))

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return self.framing.count(samples)

    def fit(self, waves: Iterable[Waves]) -> None:
        self.normalise.fit(map(self._features, waves))

    def _features(self, waves: Waves) -> Frames:
        frames = self.framing.measure(waves, self._cepstrum)
        return polynomial_deltas(frames, self.config.deltas, self.config.delta_width) if self.config.deltas else frames

    def _cepstrum(self, frames: Float[Tensor, "time window"]) -> Float[Tensor, "time dim"]:
        bands = power_spectrum(frames, self.hann, self.config.fft) @ self.filters
        return bands.clamp_min(self.config.floor).log() @ self.cosines


def cosines(mels: int, coefficients: int) -> Float[Tensor, "mels dim"]:
    """Build the orthonormal cosine transform (type II) of decibels, to be applied to natural logarithms."""
    bands, orders = (torch.arange(count, dtype=torch.float64) for count in (mels, coefficients))
    cosines = torch.cos(math.pi / mels * (bands[:, None] + 0.5) * orders) * math.sqrt(2 / mels)
    cosines[:, 0] /= math.sqrt(2)
    return (cosines * 10 / math.log(10)).float()


MFCC_39 = MFCC.Config()
