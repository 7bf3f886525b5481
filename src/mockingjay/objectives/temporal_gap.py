"""TemporalGap: how far apart are two slices of one recording?

M. Tagliasacchi, B. Gfeller, F. de Chaumont Quitry, D. Roblek, "Self-supervised audio representation learning for mobile
devices", arXiv 1905.11796; in short as "Pre-Training Audio Representations With Self-Supervision", IEEE SPL 27, 2020.

Two slices are cut at random from one clip, each becomes a vector, and a small network says their distance as a share of
the clip. The share is scored by cross-entropy, so the loss cannot fall below the shares' own entropy; it is logged
beside the absolute error, and beside what always saying the median share would make of that. What tells two moments of
a recording apart is what changes slowly in it.

Differs from the paper: sizes are from memory of it; the two slices never overlap, for what they share would give the
answer away; distances are shares of one fixed clip less a slice, the greatest there is, so that a share is the same
time in every utterance.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Loss
from mockingjay.encoders.contexts import Slices
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.log_mel import AUDIO2VEC_64
from mockingjay.moves.slices import cut
from mockingjay.objectives.objective import Objective

_FLOOR = 1e-6  # share; a constant of 0 or 1 would cost infinitely much


class TemporalGap(Objective):
    """Say the distance between two slices."""

    class Config(config.Config):
        """Defaults are the paper's (from memory)."""

        kind: Literal["temporal-gap"] = "temporal-gap"
        encoder: Encoder.Config = Encoder.Config(frontend=AUDIO2VEC_64, context=Slices.Config())
        """What is kept after training; its context must be of slices."""
        clip: int = Field(default=1000, ge=3)
        """Frames of the longest stretch two slices are taken from; 10 s, as long as AudioSet's clips (ours)."""
        head_dim: int = Field(default=64, ge=1)
        """Width between the two layers of the head."""

        @model_validator(mode="after")
        def _possible(self) -> "TemporalGap.Config":
            shape = self.encoder.context
            if not isinstance(shape, Slices.Config):
                raise ValueError(f"encoder.context.kind {shape.kind!r} has no slices, expected 'slices'")
            if self.clip <= 2 * shape.width:
                raise ValueError(f"clip {self.clip} must be longer than two slices of {shape.width} frames")
            return self

    constant: Float[Tensor, " 2"]  # mean and median share over the corpus

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        shape = config.encoder.context
        assert isinstance(shape, Slices.Config), "the config checks this"
        self.width = shape.width
        self.head = nn.Sequential(
            nn.Linear(2 * shape.dim, config.head_dim), nn.ReLU(), nn.Linear(config.head_dim, 1), nn.Flatten(0)
        )
        self.register_buffer("constant", torch.full((2,), 0.5))

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fit the frontend, and draw pairs from the whole corpus to know their mean and median distance."""
        self.encoder.frontend.fit(batch.waves for batch in batches)
        shares = []
        for batch in batches:
            starts, possible = self._pairs(self.encoder.frontend.count(batch.waves.lengths), batch, Draw(0))
            shares.append(self._share(starts)[possible])
        told = torch.cat(shares)
        if len(told):
            self.constant.copy_(torch.stack([told.mean(), told.median()]))

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
        starts, possible = self._pairs(frames.lengths, batch, draw)
        slices, _ = cut(frames.values, frames.lengths, starts, self.width)
        context = self.encoder.context
        assert isinstance(context, Slices), "the config checks this"
        vectors = context.embed(slices.flatten(0, 1), possible.repeat_interleave(2))
        said, share = self.head(vectors.unflatten(0, (-1, 2)).flatten(1)), self._share(starts)
        errors = F.binary_cross_entropy_with_logits(said, share, reduction="none")
        parts = self._figures(said.detach().sigmoid(), share) if self.training else self._trivial(share)
        sums = {name: (part * possible).sum() for name, part in parts.items()}
        return Loss((errors * possible).sum(), possible.sum().float(), sums)

    def picture(self, batch: Batch, draw: Draw) -> None:
        """No spectrogram is rebuilt."""

    def _pairs(
        self, lengths: Int[Tensor, " batch"], batch: Batch, draw: Draw
    ) -> tuple[Int[Tensor, "batch 2"], Bool[Tensor, " batch"]]:
        """Draw two slices of each utterance that do not overlap, and say which utterances have room for them."""
        ids = tuple(utterance.id for utterance in batch.utterances)
        where, begin, turned = draw.uniform(ids, "pair", 4).to(lengths.device, non_blocking=True).split([2, 1, 1], 1)
        clip = lengths.clamp(max=self.config.clip)
        # Two places among those with both slices cut out but for one frame each; putting one back parts them.
        free = (clip - 2 * self.width + 1).clamp(min=1)[:, None]
        pair = (where * free).long().sort(1).values
        pair[:, 1] += self.width
        pair = pair + (begin * (lengths - clip + 1)[:, None]).long()
        return torch.where(turned < 0.5, pair, pair.flip(1)), lengths >= 2 * self.width

    def _share(self, starts: Int[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """Measure the distance between two slices as a share of the greatest possible one."""
        return (starts[:, 0] - starts[:, 1]).abs() / (self.config.clip - self.width)

    def _figures(self, said: Float[Tensor, " batch"], share: Float[Tensor, " batch"]) -> dict[str, Tensor]:
        """Say what the loss does not: its least value, the absolute error, and that of the median."""
        return {
            "entropy": cross_entropy(share, share),
            "absolute error": (said - share).abs(),
            "absolute error of the median": (self.constant[1] - share).abs(),
        }

    def _trivial(self, share: Float[Tensor, " batch"]) -> dict[str, Tensor]:
        """Score the best constants."""
        return {name: cross_entropy(value, share) for name, value in zip(("mean", "median"), self.constant)}


def cross_entropy(said: Float[Tensor, "*batch"], share: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Score shares that were said by those that are; its least value is the entropy of the latter."""
    said = said.clamp(_FLOOR, 1 - _FLOOR)
    return -(share * said.log() + (1 - share) * (1 - said).log())
