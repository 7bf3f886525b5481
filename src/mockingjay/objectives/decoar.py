"""DeCoAR: deep contextualised acoustic representations.

S. Ling, Y. Liu, J. Salazar, K. Kirchhoff, "Deep Contextualized Acoustic Representations for Semi-Supervised Speech
Recognition", ICASSP 2020, arXiv 1912.01679.

ELMo's two directions with APC's reconstruction: one network has read everything up to a slice of 18 frames, another
everything from its end, and from the two a small head per position must say every frame of the slice. The first and the
last frame are seen, the 16 between are not. The L1 distance is summed over all possible slices of the utterance.

Differs from the paper: nothing we know of; its slice width is from the code. Differs from the code: utterances are
padded and reversed within their lengths instead of cropped to the shortest, and the loss is per cell, not per slice.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts import OneWayPair
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.moves.foresee import absolute_error
from mockingjay.moves.guess import utterance_mean
from mockingjay.objectives.objective import Objective, Picture


class DeCoAR(Objective):
    """Rebuild every slice from what surrounds it."""

    class Config(config.Config):
        """Defaults are the released code's."""

        kind: Literal["decoar"] = "decoar"
        encoder: Encoder.Config = Encoder.Config(frontend=Fbank.Config(), context=OneWayPair.Config())
        """What is kept after training; its context's directions must not mix."""
        width: int = Field(default=18, ge=3)
        """Frames of a slice, the two seen at its ends included (code)."""
        head_dim: int = Field(default=512, ge=1)
        """Width between the two layers of each position's head (code)."""

        @model_validator(mode="after")
        def _apart(self) -> "DeCoAR.Config":
            kind = self.encoder.context.kind
            if kind != "one-way-pair":
                raise ValueError(f"encoder.context.kind {kind!r} would see into the slice, expected 'one-way-pair'")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        dim, inner, frame = self.encoder.dim, config.head_dim, self.encoder.frontend.dim
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, inner), nn.ReLU(), nn.Linear(inner, frame)) for _ in range(config.width)
        )

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
        around = self._around(frames)
        places, whole = self._slices(frames)
        errors = [absolute_error(head(around), true, whole) for head, true in zip(self.heads, places)]
        weight = whole.sum() * float(self.config.width * frames.values.shape[2])
        return Loss(torch.stack(errors).sum(), weight, {} if self.training else self._trivial(frames))

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        """Show slices end to end, sharing their visible ends; masked is what a slice's own guess did not know."""
        frames = self.encoder.frontend(batch.waves)
        reach, time = self.config.width - 1, int(frames.lengths[0])
        chosen = self._around(frames)[0, : max(time - reach, 0) : reach]
        true = frames.values[0, :time]
        rebuilt, hidden = true.clone(), torch.zeros(time, dtype=torch.bool, device=true.device)
        for place in range(1, reach):
            steps = place + reach * torch.arange(len(chosen), device=true.device)
            rebuilt[steps], hidden[steps] = self.heads[place](chosen), True
        return Picture(true, true.masked_fill(hidden[:, None], 0.0), rebuilt, hidden, self.encoder.hop)

    def _around(self, frames: Frames) -> Float[Tensor, "batch slices dim"]:
        """Join for each slice what was read up to its first frame with what was read back to its last."""
        onward, backward = self.encoder.context(frames).last.chunk(2, -1)
        reach = self.config.width - 1
        return torch.cat([onward[:, : max(onward.shape[1] - reach, 0)], backward[:, reach:]], -1)

    def _slices(self, frames: Frames) -> tuple[list[Float[Tensor, "batch slices frame"]], Bool[Tensor, "batch slices"]]:
        """List for each position in a slice the frames there, and mark the slices that lie inside their utterance."""
        reach = self.config.width - 1
        count = max(frames.values.shape[1] - reach, 0)
        return [frames.values[:, place : place + count] for place in range(reach + 1)], frames.valid[:, reach:]

    def _trivial(self, frames: Frames) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors, which know a slice's ends, on the same cells."""
        places, whole = self._slices(frames)
        first, last, reach = places[0], places[-1], len(places) - 1
        mean = utterance_mean(frames, torch.zeros_like(frames.valid))[:, : first.shape[1]]
        guesses = {
            "utterance mean": [mean for _ in places],
            "copy last": [first for _ in places],
            "interpolation": [torch.lerp(first, last, place / reach) for place in range(reach + 1)],
        }
        return {
            name: torch.stack([absolute_error(*pair, whole) for pair in zip(said, places)]).sum()
            for name, said in guesses.items()
        }
