"""Log-mel spectra with optional derivatives: what Mockingjay, TERA and Audio ALBERT read and rebuild.

Liu et al. 2020 (Mockingjay, arXiv 1910.12638) read 80 log-mel bands and their deltas, Liu et al. 2021 (TERA, arXiv
2007.06028) 80 log-mel bands. Widths, floors and levels are from the two releases' code.

Differs from the code: edges are reflected at each utterance's own end and statistics are taken over its own frames,
where the second release reflects and counts the batch's padding; standard deviations have a larger floor, which only
silence meets.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.frontends.conditioning import Level, preemphasise
from mockingjay.encoders.frontends.deltas import DeltaWidth, polynomial_deltas
from mockingjay.encoders.frontends.framing import Framing, Hop, Transform, Window
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.normalise import Normalisation, Normalise, leaks
from mockingjay.encoders.frontends.spectrum import mel_filters, power_spectrum


class LogMel(Frontend):
    """Logarithms of mel bands of the power spectrum; as published for Mockingjay unless configured."""

    class Config(Table):
        """Defaults are Mockingjay's 160 dimensions at 80 frames per second (code)."""

        kind: Literal["log-mel"] = "log-mel"
        mels: int = Field(default=80, ge=1, le=1024)
        """Mel bands."""
        window: Window = 800
        """Samples under the Hann window; even."""
        fft: Transform = 2048
        """Samples of the transform, at least the window."""
        hop: Hop = 200
        """Samples from one frame to the next."""
        centre: bool = True
        """Centre frame t on sample t · hop and reflect at the edges; otherwise frame t starts there."""
        power: Literal[1, 2] = 2
        """2 reads the power spectrum, 1 the magnitude spectrum."""
        floor: float = Field(default=1e-6, gt=0)
        """Added before the logarithm."""
        scale: Literal["slaney", "htk"] = "slaney"
        """Mel scale: 'slaney' with filters of unit area (librosa), 'htk' with filters of unit height (torchaudio)."""
        level: float | None = None
        """Root mean square each utterance is scaled to, in dBFS."""
        preemphasis: float = Field(default=0.0, ge=0, lt=1)
        """Share of the previous sample that is subtracted."""
        deltas: int = Field(default=1, ge=0, le=2)
        """Orders of time derivatives appended."""
        delta_width: DeltaWidth = 9
        """Frames a derivative is fitted to; odd."""
        normalise: Normalisation = "utterance"
        """Mean and variance normalisation over each utterance, over the corpus, or none."""

    filters: Float[Tensor, "bins mels"]
    hann: Float[Tensor, " window"]

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        least = max(config.delta_width if config.deltas else 1, 2 if config.normalise == "utterance" else 1)
        self.framing = Framing(config.window, config.hop, config.centre, least)
        self.dim = config.mels * (1 + config.deltas)
        self.grid, self.receptive = self.framing.grid, self.framing.receptive
        self.register_buffer("filters", mel_filters(config.mels, config.fft, config.scale), persistent=False)
        self.register_buffer("hann", torch.hann_window(config.window), persistent=False)
        self.level = Level(config.level)
        self.normalise = Normalise(config.normalise, self.dim)
        self.leaks = leaks(config.normalise, config.level)

    def forward(self, waves: Waves) -> Frames:
        """Compute log-mel frames.

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
        frames = self.framing.measure(waves, self._log_mel)
        return polynomial_deltas(frames, self.config.deltas, self.config.delta_width) if self.config.deltas else frames

    def _log_mel(self, frames: Float[Tensor, "time window"]) -> Float[Tensor, "time mels"]:
        spectrum = power_spectrum(frames, self.hann, self.config.fft)
        if self.config.power == 1:
            spectrum = spectrum.clamp_min(torch.finfo(spectrum.dtype).tiny).sqrt()  # a root has no gradient at zero
        return torch.log(spectrum @ self.filters + self.config.floor)


MOCKINGJAY_160 = LogMel.Config()
TERA_80 = LogMel.Config(
    window=400, fft=400, hop=160, floor=1e-10, scale="htk", level=-25.0, deltas=0, normalise="utterance"
)
# About a second in 96 frames of 64 bands; from memory of arXiv 1905.11796, the normalisation is ours
AUDIO2VEC_64 = LogMel.Config(mels=64, window=400, fft=512, hop=160, deltas=0, normalise="global")
