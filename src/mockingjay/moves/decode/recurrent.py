"""The light decoder of waveforms: a recurrent network over latents, and one over samples.

Van Niekerk et al. 2020 (arXiv 2005.09409), the code for ZeroSpeech 2020: two bidirectional layers read latents and the
speaker at the rate of frames, and a large one-way layer says every sample from the one before and what they said.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Grid, Loss, Waves
from mockingjay.encoders.contexts.recurrent import recur
from mockingjay.moves.decode.decoder import Decoder, Segment
from mockingjay.moves.decode.mu_law import LEVELS, SILENCE, Levels, before, compress, expand, sample


class RecurrentDecoder(Decoder):
    """Scores a waveform of 256 levels."""

    class Config(Table):
        """Defaults are the code's."""

        kind: Literal["recurrent"] = "recurrent"
        frames: int = Field(default=128, ge=1)
        """Width of each direction of the layers over latents."""
        samples: int = Field(default=896, ge=1)
        """Width of the layer over samples."""
        embedding: int = Field(default=256, ge=1)
        """Width in which a level is read, and of the layer below the output."""

    def __init__(self, config: Config, dim: int, speaker: int, grid: Grid) -> None:
        super().__init__()
        self.hop, self.rate = grid.hop, math.gcd(2, grid.hop)
        self.levels = Levels()
        self.read = nn.GRU(dim + speaker, config.frames, 2, batch_first=True, bidirectional=True)
        self.embed = nn.Embedding(LEVELS, config.embedding)
        self.say = nn.GRU(config.embedding + 2 * config.frames, config.samples, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(config.samples, config.embedding), nn.ReLU(), nn.Linear(config.embedding, LEVELS)
        )

    def fit(self, waves: Iterable[Waves]) -> None:
        self.levels.fit(waves)

    def forward(
        self,
        latents: Float[Tensor, "batch time dim"],
        speakers: Float[Tensor, "batch speaker"],
        waves: Waves,
        segment: Segment,
    ) -> Loss:
        samples, valid = segment.samples(waves)
        levels = compress(samples)
        read = self._condition(latents, speakers)
        said, _ = recur(self.say, torch.cat([self.embed(before(levels)), read], -1))
        return self.levels.score(self.head(said), levels, valid)

    @torch.no_grad()
    def generate(
        self,
        latents: Float[Tensor, "batch time dim"],
        speakers: Float[Tensor, "batch speaker"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch samples"]:
        read = self._condition(latents, speakers)
        heard, state, levels = torch.full((len(read),), SILENCE, device=read.device), None, []
        for step in range(read.shape[1]):
            said, state = self.say(torch.cat([self.embed(heard), read[:, step]], -1)[:, None], state)
            heard = sample(self.head(said[:, 0]), generator)
            levels.append(heard)
        return expand(torch.stack(levels, 1))

    def _condition(
        self, latents: Float[Tensor, "batch time dim"], speakers: Float[Tensor, "batch speaker"]
    ) -> Float[Tensor, "batch samples frames"]:
        """Read latents and the speaker, and repeat what they say for every sample."""
        who = speakers[:, None].expand(-1, latents.shape[1], -1)
        # Twice a latent, as often as there are frames (code).
        read = torch.cat([latents, who], -1).repeat_interleave(self.rate, 1)
        return recur(self.read, read)[0].repeat_interleave(self.hop // self.rate, 1)
