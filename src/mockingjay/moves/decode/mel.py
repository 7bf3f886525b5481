"""The lightest decoder: convolutions that draw log-mel frames, as voice conversion does without a vocoder.

Ours; frames are scored by their absolute distance and made to sound by Griffin and Lim's rounds.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Grid, Loss, Waves
from mockingjay.encoders.frontends import LogMel
from mockingjay.moves.decode.decoder import Decoder, Segment
from mockingjay.moves.griffin_lim import ShortTime, griffin_lim
from mockingjay.moves.guess import utterance_mean
from mockingjay.moves.slices import cut
from mockingjay.moves.sound import ROUNDS, mel_magnitude


class MelDecoder(Decoder):
    """Scores log-mel frames."""

    class Config(Table):
        """All of it is ours."""

        kind: Literal["mel"] = "mel"
        channels: int = Field(default=256, ge=1)
        """Width of the convolutions."""
        layers: int = Field(default=3, ge=1)
        """Convolutions, of 5 frames each."""
        target: LogMel.Config = LogMel.Config(window=400, fft=512, hop=160, deltas=0, normalise="global")
        """What is drawn, several frames to a latent; normalised over the corpus, which can be undone."""

        @field_validator("target")
        @classmethod
        def _sounds(cls, target: LogMel.Config) -> LogMel.Config:
            if target.normalise != "global" or target.deltas or not target.centre:
                raise ValueError("target must be centred, without deltas and normalised over the corpus, to sound")
            return target

    def __init__(self, config: Config, dim: int, speaker: int, grid: Grid) -> None:
        super().__init__()
        self.target = LogMel(config.target)
        self.transform = ShortTime(config.target.window, config.target.hop, config.target.fft)
        hop = config.target.hop
        self.factor = grid.hop // hop
        if grid != Grid(hop * self.factor, hop * (self.factor - 1) / 2):
            raise ConfigError(
                f"objective.decoder.target: frames of {hop} samples do not fill latents on {grid}, expected a whole "
                "number of them centred on each; change its hop or the encoder's frontend"
            )
        widths = [dim + speaker, *[config.channels] * (config.layers - 1)]
        self.layers = nn.ModuleList(nn.Conv1d(width, config.channels, 5, padding=2) for width in widths)
        self.head = nn.Conv1d(config.channels, self.target.dim, 1)

    def fit(self, waves: Iterable[Waves]) -> None:
        self.target.fit(waves)

    def forward(
        self,
        latents: Float[Tensor, "batch time dim"],
        speakers: Float[Tensor, "batch speaker"],
        waves: Waves,
        segment: Segment,
    ) -> Loss:
        with torch.no_grad():
            frames = self.target(waves)
        starts, width = self.factor * segment.first[:, None], self.factor * segment.count
        wanted, inside = cut(frames.values, frames.lengths, starts, width)
        wanted, scored = wanted[:, 0], inside[:, 0, :, None]
        guesses = {"model": self.draw(latents, speakers)}
        if not self.training:
            mean = utterance_mean(frames, torch.zeros_like(frames.valid))
            guesses["corpus mean"] = torch.zeros_like(wanted)  # for so it is normalised
            guesses["utterance mean"] = cut(mean, frames.lengths, starts, width)[0][:, 0]
        sums = {name: (F.l1_loss(guess, wanted, reduction="none") * scored).sum() for name, guess in guesses.items()}
        return Loss(sums.pop("model"), scored.sum() * float(wanted.shape[2]), sums)

    def draw(
        self, latents: Float[Tensor, "batch time dim"], speakers: Float[Tensor, "batch speaker"]
    ) -> Float[Tensor, "batch frames mels"]:
        """Draw the frames of each latent."""
        who = speakers[:, None].expand(-1, latents.shape[1], -1)
        values = torch.cat([latents, who], -1).repeat_interleave(self.factor, 1).transpose(1, 2)
        for layer in self.layers:
            values = F.relu(layer(values))
        return self.head(values).transpose(1, 2)

    @torch.no_grad()
    def generate(
        self,
        latents: Float[Tensor, "batch time dim"],
        speakers: Float[Tensor, "batch speaker"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch samples"]:
        """Draw frames and find a signal that has them; phases begin at random."""
        config, normalise = self.target.config, self.target.normalise
        mels = self.draw(latents, speakers) * normalise.std + normalise.mean
        magnitude = mel_magnitude(self.target, mels)
        samples = mels.shape[1] * config.hop - 1  # as many as have so many frames
        phase = torch.rand(magnitude.shape, generator=generator).to(magnitude) * (2 * torch.pi)
        rows = [griffin_lim(*row, self.transform, samples, ROUNDS) for row in zip(magnitude, phase)]
        return F.pad(torch.stack(rows), (0, 1))
