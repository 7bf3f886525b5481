"""NPC: non-autoregressive predictive coding.

A. H. Liu, Y.-A. Chung, J. Glass, "Non-Autoregressive Predictive Coding for Learning Speech Representations from Local
Dependencies", Interspeech 2021, arXiv 2011.00406.

Every frame is rebuilt from the few around it, all at once: convolutions that are blind to the frame and its nearest
neighbours see nine frames to either side of that. Nothing is hidden from the input, so nothing differs between training
and use, and no step waits for the one before it. The sum of what the convolutions say must pass through four small
codebooks on its way to the L1 distance, which leaves room for what is said and little for the rest.

Differs from the paper: features are normalised per utterance; padding is not scored. Sizes are the released code's, and
so is what is kept: the sum as it is before quantisation. See also encoders/contexts/masked_convolution.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.masked_convolution import MaskedConvolution
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.encoders.gumbel import GumbelQuantiser
from mockingjay.encoders.quantise import Chosen
from mockingjay.moves.foresee import absolute_error
from mockingjay.moves.guess import utterance_mean
from mockingjay.objectives.objective import Objective, Picture


class NPC(Objective):
    """Rebuild every frame from what is around it."""

    class Config(config.Config):
        """Defaults are the released code's."""

        kind: Literal["npc"] = "npc"
        encoder: Encoder.Config = Encoder.Config(frontend=Fbank.Config(), context=MaskedConvolution.Config())
        """What is kept after training; its context must be blind to the frame it speaks of."""
        quantised: bool = True
        """Whether what is rebuilt from passes through codes (section 2.2)."""
        quantiser: GumbelQuantiser.Config = Field(
            default=GumbelQuantiser.Config(groups=4, codes=64, temperature=1.0), validate_default=True
        )
        """The codes; dropped after training."""

        @model_validator(mode="after")
        def _blind(self) -> "NPC.Config":
            context = self.encoder.context
            if not isinstance(context, MaskedConvolution.Config):
                raise ValueError(
                    f"encoder.context.kind {context.kind!r} sees what it says, expected 'masked-convolution'"
                )
            if context.dim % self.quantiser.groups:
                raise ValueError(
                    f"quantiser.groups {self.quantiser.groups} must divide encoder.context.dim {context.dim}"
                )
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.quantiser = GumbelQuantiser(config.quantiser, self.encoder.dim) if config.quantised else None
        self.head = nn.Linear(self.encoder.dim, self.encoder.frontend.dim)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames, said, chosen = self._rebuild(batch, draw)
        weight = frames.valid.sum() * float(frames.values.shape[2])
        parts = {}
        if not self.training:
            parts = self._trivial(frames)
        elif chosen is not None:
            parts = {"perplexity": chosen.perplexity(frames.valid) * weight}
        return Loss(absolute_error(said, frames.values, frames.valid), weight, parts)

    def codes(self, batch: Batch) -> Int[Tensor, "steps groups"] | None:
        frames, _, chosen = self._rebuild(batch, Draw(0))
        return None if chosen is None else chosen.likeliest[frames.valid]

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        """Show every frame as rebuilt without itself, but for the first and last, around which something is missing."""
        frames, said, _ = self._rebuild(batch, draw)
        true, rebuilt = (each[0, : frames.lengths[0]] for each in (frames.values, said))
        steps = torch.arange(len(true), device=true.device)
        told = (steps >= self.reach) & (steps < len(true) - self.reach)
        return Picture(true, true, torch.where(told[:, None], rebuilt, true), told, self.encoder.hop)

    @property
    def reach(self) -> int:
        """Frames from one that is rebuilt to the nearest that is known."""
        assert isinstance(self.encoder.context, MaskedConvolution), "the config checks this"
        return self.encoder.context.reach

    def _rebuild(self, batch: Batch, draw: Draw) -> tuple[Frames, Float[Tensor, "batch time dim"], Chosen | None]:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
        around = self.encoder.context(frames).last
        if self.quantiser is None:
            return frames, self.head(around), None
        chosen = self.quantiser(around, draw, tuple(utterance.id for utterance in batch.utterances))
        return frames, self.head(chosen.values), chosen

    def _trivial(self, frames: Frames) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors, which know what lies outside each frame's mask; at the ends there is one side."""
        steps = torch.arange(frames.values.shape[1], device=frames.values.device)
        ends = frames.lengths[:, None]
        before, after = steps - self.reach, (steps + self.reach).expand(len(ends), -1)
        left = torch.where(before >= 0, before, after).minimum(ends - 1).clamp(min=0)
        right = torch.where(after < ends, after, before).clamp(min=0)
        copied, other = (frames.values.gather(1, index[:, :, None].expand_as(frames.values)) for index in (left, right))
        guesses = {
            "utterance mean": utterance_mean(frames, torch.zeros_like(frames.valid)),
            "copy last": copied,
            "interpolation": (copied + other) / 2,
        }
        return {name: absolute_error(guess, frames.values, frames.valid) for name, guess in guesses.items()}
