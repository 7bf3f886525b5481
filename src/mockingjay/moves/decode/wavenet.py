"""WaveNet: every sample's distribution from the samples before it, the latents around it and the speaker.

Van den Oord et al. 2016 (arXiv 1609.03499); sizes are those of ae-wavenet (code) for Chorowski et al. 2019 (arXiv
1901.08810). In training all samples are scored at once from the true ones before them. A segment begins after silence,
whatever came before it, as a generated utterance does.

Convolutions have a kernel of two, so each is one matrix, half of whose answer is for now and half for some samples
later: training and sampling step by step run the very same matrices.
"""

import math
from collections.abc import Iterable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Grid, Loss, Waves
from mockingjay.moves.decode.decoder import Decoder, Segment
from mockingjay.moves.decode.mu_law import LEVELS, SILENCE, Levels, before, compress, expand, sample


class WaveNet(Decoder):
    """Scores a waveform of 256 levels."""

    class Config(Table):
        """Defaults are ae-wavenet's (code)."""

        kind: Literal["wavenet"] = "wavenet"
        cycles: int = Field(default=2, ge=1)
        """How often dilations start again at 1."""
        layers: int = Field(default=10, ge=1)
        """Layers of a cycle; each looks back twice as far as the one before, the first by one sample."""
        residual: int = Field(default=368, ge=1)
        """Channels from layer to layer."""
        gate: int = Field(default=256, ge=1)
        """Channels of each gate."""
        skip: int = Field(default=256, ge=1)
        """Channels from every layer to the output, and between the output's two layers."""
        local: int = Field(default=128, ge=1)
        """Channels in which latents are brought to the rate of samples."""
        strides: tuple[int, ...] = (5, 4, 4, 4)
        """Factors by which that is done, one transposed convolution each; their product must be a latent's samples."""
        filters: tuple[int, ...] = (25, 16, 16, 16)
        """Widths of the transposed convolutions, in steps of what each puts out."""

        @model_validator(mode="after")
        def _even(self) -> "WaveNet.Config":
            pairs = list(zip(self.filters, self.strides))
            if len(self.filters) != len(self.strides) or any(wide < step or (wide - step) % 2 for wide, step in pairs):
                raise ValueError(
                    f"filters {self.filters} must be as many as strides {self.strides}, each wider by an even number"
                )
            return self

    def __init__(self, config: Config, dim: int, speaker: int, grid: Grid) -> None:
        super().__init__()
        if math.prod(config.strides) != grid.hop:
            raise ConfigError(
                f"objective.decoder.strides: {config.strides} multiply to {math.prod(config.strides)}, "
                f"expected the {grid.hop} samples of a latent; change them or the encoder's hop"
            )
        self.levels = Levels()
        self.spread = nn.Conv1d(dim, config.local, 3, padding=1)
        self.raise_rate = nn.ModuleList(
            nn.ConvTranspose1d(config.local, config.local, wide, step, padding=(wide - step) // 2)
            for wide, step in zip(config.filters, config.strides)
        )
        self.embed = nn.Embedding(LEVELS, config.residual)
        dilations = [2**layer for _ in range(config.cycles) for layer in range(config.layers)]
        self.stack = nn.ModuleList(_Layer(config, speaker, dilation) for dilation in dilations)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(config.skip, config.skip), nn.ReLU(), nn.Linear(config.skip, LEVELS)
        )

    @property
    def layers(self) -> list["_Layer"]:
        """The layers from bottom to top."""
        return cast(list[_Layer], list(self.stack))

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
        return self.levels.score(self.logits(before(levels), self.at_sample_rate(latents), speakers), levels, valid)

    def logits(
        self,
        heard: Int[Tensor, "batch samples"],
        local: Float[Tensor, "batch samples local"],
        speakers: Float[Tensor, "batch speaker"],
    ) -> Float[Tensor, "batch samples levels"]:
        """Say every sample's distribution at once, given the one before each."""
        values, total = self.embed(heard), 0.0
        for layer in self.layers:
            now, later = layer.look(values).chunk(2, -1)
            shift = min(layer.dilation, later.shape[1])
            gates = now + F.pad(later, (0, 0, shift, -shift))
            values, skipped = layer(values, gates + layer.local(local) + layer.speaker(speakers)[:, None])
            total = total + skipped
        return self.head(total)

    @torch.no_grad()
    def generate(
        self,
        latents: Float[Tensor, "batch time dim"],
        speakers: Float[Tensor, "batch speaker"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch samples"]:
        """Draw sample after sample; about a thousand samples a second."""
        local = self.at_sample_rate(latents)
        conditions = [layer.local(local) + layer.speaker(speakers)[:, None] for layer in self.layers]
        memory = [torch.zeros_like(condition[:, : layer.dilation]) for layer, condition in zip(self.layers, conditions)]
        heard, said = torch.full((len(local),), SILENCE, device=local.device), []
        for step in range(local.shape[1]):
            values, total = self.embed(heard), 0.0
            for layer, condition, past in zip(self.layers, conditions, memory):
                now, later = layer.look(values).chunk(2, -1)
                place = step % past.shape[1]
                gates = now + past[:, place] + condition[:, step]
                past[:, place] = later
                values, skipped = layer(values, gates)
                total = total + skipped
            heard = sample(self.head(total), generator)
            said.append(heard)
        return expand(torch.stack(said, 1))

    def at_sample_rate(self, latents: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch samples local"]:
        """Bring latents to the rate of samples."""
        values = self.spread(latents.transpose(1, 2))
        for convolve in self.raise_rate:
            values = convolve(values)
        return values.transpose(1, 2)


class _Layer(nn.Module):
    """Looks at samples; from the gates they open with what was seen earlier, says what to pass on and what to skip."""

    def __init__(self, config: WaveNet.Config, speaker: int, dilation: int) -> None:
        super().__init__()
        self.dilation, self.widths = dilation, [config.residual, config.skip]
        self.look = nn.Linear(config.residual, 4 * config.gate, bias=False)  # half for now, half for `dilation` later
        self.local = nn.Linear(config.local, 2 * config.gate)
        self.speaker = nn.Linear(speaker, 2 * config.gate, bias=False)
        self.tell = nn.Linear(config.gate, sum(self.widths))

    def forward(
        self, values: Float[Tensor, "*cells residual"], gates: Float[Tensor, "*cells gates"]
    ) -> tuple[Float[Tensor, "*cells residual"], Float[Tensor, "*cells skip"]]:
        wave, gate = gates.chunk(2, -1)
        onward, skipped = self.tell(wave.tanh() * gate.sigmoid()).split(self.widths, -1)
        return values + onward, skipped
