"""Kaldi's filterbank: what APC, MPC and s3prl's Mockingjay read.

Povey et al. 2011, "The Kaldi speech recognition toolkit": frame t starts at sample t · hop ("snip edges"), loses its
mean and is pre-emphasised on its own. Dither is left out, so that features are a function of the audio.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.frontends.deltas import DeltaWidth, regression_deltas
from mockingjay.encoders.frontends.framing import Framing, Hop, Transform, Window
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.normalise import Normalisation, Normalise, leaks
from mockingjay.encoders.frontends.spectrum import mel_filters, power_spectrum


class Fbank(Frontend):
    """Log mel bands as Kaldi computes them, with its derivatives."""

    class Config(Table):
        """Defaults are Kaldi's, with the 80 bands of s3prl and APC (code)."""

        kind: Literal["fbank"] = "fbank"
        mels: int = Field(default=80, ge=1, le=1024)
        """Mel bands."""
        window: Window = 400
        """Samples per frame; even."""
        fft: Transform = 512
        """Samples of the transform, at least the window."""
        hop: Hop = 160
        """Samples from one frame to the next."""
        shape: Literal["povey", "hamming"] = "povey"
        """Shape of the window."""
        low: float = Field(default=20.0, ge=0, lt=8000)
        """Lower edge of the first band, in Hz; the last one ends at 8 kHz."""
        amplitude: float = Field(default=32_768.0, gt=0)
        """Samples are multiplied by this: Kaldi reads 16-bit integers."""
        preemphasis: float = Field(default=0.97, ge=0, lt=1)
        """Share of the previous sample that is subtracted."""
        floor: float = Field(default=torch.finfo(torch.float32).eps, gt=0)
        """Least energy of a band."""
        deltas: int = Field(default=0, ge=0, le=2)
        """Orders of time derivatives appended."""
        delta_width: DeltaWidth = 5
        """Frames of one regression; odd."""
        normalise: Normalisation = "utterance"
        """Mean and variance normalisation over each utterance, over the corpus, or none."""

    filters: Float[Tensor, "bins mels"]
    shape: Float[Tensor, " window"]

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.framing = Framing(config.window, config.hop, False, 2 if config.normalise == "utterance" else 1)
        self.dim = config.mels * (1 + config.deltas)
        self.grid, self.receptive = self.framing.grid, self.framing.receptive
        if config.shape == "povey":
            shape = torch.hann_window(config.window, periodic=False, dtype=torch.float64) ** 0.85
        else:
            shape = torch.hamming_window(config.window, periodic=False, dtype=torch.float64)
        self.register_buffer("shape", (shape * config.amplitude).float(), persistent=False)
        self.register_buffer("filters", mel_filters(config.mels, config.fft, "kaldi", config.low), persistent=False)
        self.normalise = Normalise(config.normalise, self.dim)
        self.leaks = leaks(config.normalise)

    def forward(self, waves: Waves) -> Frames:
        """Compute filterbank frames.

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
        frames = self.framing.measure(waves, self._bands)
        return regression_deltas(frames, self.config.deltas, self.config.delta_width) if self.config.deltas else frames

    def _bands(self, frames: Float[Tensor, "time window"]) -> Float[Tensor, "time mels"]:
        frames = frames - frames.mean(1, keepdim=True)
        before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
        frames = torch.sub(frames, before, alpha=self.config.preemphasis)
        energy = power_spectrum(frames, self.shape, self.config.fft) @ self.filters
        return energy.clamp_min(self.config.floor).log()


FBANK_240 = Fbank.Config(deltas=2)  # s3prl's Mockingjay and TERA on filterbanks (code)
APC_80 = Fbank.Config(shape="hamming")  # normalised by speaker in the paper's code, by utterance in s3prl's
MPC_40 = Fbank.Config(mels=40, normalise="global")  # Jiang et al. 2019, arXiv 1910.09932 (code)
