"""Spectra on the linear frequency scale: the target of Mockingjay LARGE and of s3prl's large models.

Liu et al. 2020 (arXiv 1910.12638) table 1: LARGE rebuilds linear-scale spectra from log-mel ones. Both definitions
are from the releases' code; the first maps decibels to [0, 1].
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
from mockingjay.encoders.frontends.conditioning import Level, preemphasise
from mockingjay.encoders.frontends.framing import Framing, Hop, Transform, Window
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.normalise import Normalisation, Normalise, leaks
from mockingjay.encoders.frontends.spectrum import power_spectrum


class Linear(Frontend):
    """Log power of every bin of the spectrum; the 1025 bins of Mockingjay LARGE unless configured."""

    class Config(Table):
        """Defaults are Mockingjay LARGE's target (code)."""

        kind: Literal["linear"] = "linear"
        window: Window = 800
        """Samples under the Hann window; even."""
        fft: Transform = 2048
        """Samples of the transform, at least the window; it gives fft / 2 + 1 bins."""
        hop: Hop = 200
        """Samples from one frame to the next."""
        centre: bool = True
        """Centre frame t on sample t · hop and reflect at the edges; otherwise frame t starts there."""
        scale: Literal["decibels", "log"] = "decibels"
        """'decibels' maps −80 to 20 dB onto [0, 1] and clips; 'log' is log(power + floor)."""
        floor: float = Field(default=1e-10, gt=0)
        """Least power under 'decibels'; added to the power under 'log'."""
        level: float | None = None
        """Root mean square each utterance is scaled to, in dBFS."""
        preemphasis: float = Field(default=0.97, ge=0, lt=1)
        """Share of the previous sample that is subtracted."""
        normalise: Normalisation = "utterance"
        """Mean and variance normalisation over each utterance, over the corpus, or none."""

    hann: Float[Tensor, " window"]

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.framing = Framing(config.window, config.hop, config.centre, 2 if config.normalise == "utterance" else 1)
        self.dim = config.fft // 2 + 1
        self.grid, self.receptive = self.framing.grid, self.framing.receptive
        self.register_buffer("hann", torch.hann_window(config.window), persistent=False)
        self.level = Level(config.level)
        self.normalise = Normalise(config.normalise, self.dim)
        self.leaks = leaks(config.normalise, config.level)

    def forward(self, waves: Waves) -> Frames:
        """Compute linear-scale frames.

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
        waves = self.level(waves)
        if self.config.preemphasis:
            waves = preemphasise(waves, self.config.preemphasis)
        return self.framing.measure(waves, self._spectrum)

    def _spectrum(self, frames: Float[Tensor, "time window"]) -> Float[Tensor, "time bins"]:
        power = power_spectrum(frames, self.hann, self.config.fft)
        if self.config.scale == "log":
            return torch.log(power + self.config.floor)
        decibels = power.clamp_min(self.config.floor).log() * (10 / math.log(10))
        return ((decibels + 80) / 100).clamp(0, 1)  # 20 dB is the reference level, 100 dB the range


LINEAR_1025 = Linear.Config()
# s3prl's large models (code)
LINEAR_201 = Linear.Config(window=400, fft=400, hop=160, scale="log", level=-25.0, preemphasis=0.0)
