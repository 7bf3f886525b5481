"""What every decoder of an autoencoder does: from latents and a speaker, say the speech they came from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mockingjay.core.types import Grid, Loss, Waves
from mockingjay.moves.slices import cut


@dataclass(frozen=True, slots=True)
class Segment:
    """The stretch of each utterance that is decoded."""

    first: Int[Tensor, " batch"]  # latents
    count: int  # latents
    grid: Grid  # of the latents

    def samples(self, waves: Waves) -> tuple[Float[Tensor, "batch samples"], Bool[Tensor, "batch samples"]]:
        """Cut the samples the latents lie on, and say which of them are the utterance's."""
        start = self.first * self.grid.hop + round(self.grid.centre - self.grid.hop / 2)
        span = self.count * self.grid.hop
        samples, inside = cut(waves.samples[:, :, None], waves.lengths, start[:, None], span)
        return samples[:, 0, :, 0], inside[:, 0]


class Decoder(nn.Module, ABC):
    """Says speech from latents."""

    @abstractmethod
    def fit(self, waves: Iterable[Waves]) -> None:
        """See the corpus once before training, into buffers."""

    @abstractmethod
    def forward(
        self,
        latents: Float[Tensor, "batch time dim"],
        speakers: Float[Tensor, "batch speaker"],
        waves: Waves,
        segment: Segment,
    ) -> Loss:
        """Score the speech of a segment given its latents; in evaluation parts are what dumb predictors would score.

        Args:
            latents: Of the segment.
            speakers: A vector for who speaks.
            waves: The whole utterances.
            segment: What of them is scored.
        """

    @abstractmethod
    def generate(
        self,
        latents: Float[Tensor, "batch time dim"],
        speakers: Float[Tensor, "batch speaker"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch samples"]:
        """Make sound, as many samples as the latents lie on."""
