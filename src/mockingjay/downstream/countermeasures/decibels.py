"""What the published countermeasures read: the log power spectrum in decibels (code of arXiv 1910.08716).

Frames of 1724 samples under a Blackman window every 130 samples, no pre-emphasis, no normalisation: 863 bins.
"""

import math

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.frontends.framing import Framing, Hop, Transform, Window
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.spectrum import power_spectrum


class Decibels(Frontend):
    """Log power of every bin, in decibels."""

    class Config(Table):
        """Defaults are the published 863 bins (code)."""

        window: Window = 1724
        """Samples under the Blackman window; even."""
        fft: Transform = 1724
        """Samples of the transform, at least the window; it gives fft / 2 + 1 bins."""
        hop: Hop = 130
        """Samples from one frame to the next."""
        floor: float = Field(default=1e-10, gt=0)
        """Added to the power: nothing lies below −100 dB (ours; without it silence has no decibels)."""

    blackman: Float[Tensor, " window"]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.framing = Framing(config.window, config.hop, centre=True)
        self.dim = config.fft // 2 + 1
        self.grid, self.receptive = self.framing.grid, self.framing.receptive
        self.register_buffer("blackman", torch.blackman_window(config.window), persistent=False)

    def forward(self, waves: Waves) -> Frames:
        """Compute frames.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
        """
        return self.framing.measure(waves, self._spectrum)

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return self.framing.count(samples)

    def _spectrum(self, frames: Float[Tensor, "time window"]) -> Float[Tensor, "time bins"]:
        power = power_spectrum(frames, self.blackman, self.config.fft)
        return (power + self.config.floor).log() * (10 / math.log(10))
