"""SLU BERT (BERT-PLM): masked language modelling on what each frame sounds like.

P. Wang, L. Wei, Y. Cao, J. Xie, Z. Nie, "Large-scale unsupervised pre-training for end-to-end spoken language
understanding", ICASSP 2020; longer as P. Wang et al., "Understanding Semantics from Speech Through Pre-training", arXiv
1909.10924.

The network reads phone posteriors instead of spectra: each frame is the expected embedding of its phone. 15 % of the
frames that are not silence are replaced by one learned vector, and from the rest the network must say their posteriors,
scored by cross-entropy with the posterior itself as the target. The recogniser behind the posteriors is frozen.

Differs from the paper: by default no phone recogniser but soft k-means over log-mel frames, which needs no labels; with
the frontend `recogniser`, a phone probe of ours, frozen. Sizes, the form of the relative positions and the output layer
are ours, for its text was not at hand; fine-tuning adds no pre-training loss to the task's.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.relative import RelativeTransformer
from mockingjay.encoders.contexts.transformer import initialise
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Posteriors, Recogniser
from mockingjay.moves.guess import PREDICTORS
from mockingjay.objectives.objective import Objective, Picture

_FLOOR = 1e-8  # probability; what a trivial predictor rules out would cost infinitely much


class SLUBERT(Objective):
    """Hide frames' posteriors and rebuild them."""

    class Config(config.Config):
        """The share is the paper's, sizes are ours."""

        kind: Literal["slu-bert"] = "slu-bert"
        encoder: Encoder.Config = Encoder.Config(
            frontend=Posteriors.Config(),
            context=RelativeTransformer.Config(layers=6, dim=512, feedforward=2048, heads=8),
        )
        """What is kept after training: posteriors or a recogniser's, then a relative transformer."""
        share: float = Field(default=0.15, gt=0, lt=1)
        """Share of the frames that are not silence to hide (paper: less overfits, 0.2 is too hard)."""

        @model_validator(mode="after")
        def _reads_posteriors(self) -> "SLUBERT.Config":
            kinds = (self.encoder.frontend.kind, self.encoder.context.kind)
            if kinds[0] not in ("posteriors", "recogniser") or kinds[1] != "relative-transformer":
                expected = "posteriors or recogniser, and relative-transformer"
                raise ValueError(f"encoder is made of {' and '.join(kinds)}, expected {expected}")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.mask = nn.Parameter(torch.empty(self.encoder.dim).normal_(std=0.02))
        self.head = nn.Linear(self.encoder.dim, self.encoder.frontend.dim)
        self.head.apply(initialise)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames = self._frames(batch)
        hidden = self._hide(frames, batch, draw)
        wanted = frames.values[hidden]
        loss = cross_entropy(wanted, self.head(self._read(frames, hidden)[hidden]).log_softmax(-1))
        weight = torch.tensor(float(len(wanted)), device=loss.device)
        return Loss(loss, weight, {} if self.training else self._trivial(frames, hidden))

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        frames = self._frames(batch)
        hidden = self._hide(frames, batch, draw)
        rebuilt = self.head(self._read(frames, hidden)).softmax(-1)
        altered = frames.values.masked_fill(hidden[:, :, None], 0.0)
        length = int(frames.lengths[0])
        true, altered, rebuilt = (part[0, :length] for part in (frames.values, altered, rebuilt))
        return Picture(true, altered, rebuilt, hidden[0, :length], self.encoder.hop)

    @torch.no_grad()
    def _frames(self, batch: Batch) -> Frames:
        return self.encoder.frontend(batch.waves)

    def _hide(self, frames: Frames, batch: Batch, draw: Draw) -> Bool[Tensor, "batch time"]:
        """Draw single frames from those that are not silence: at least one, but never all frames of an utterance."""
        ids = tuple(utterance.id for utterance in batch.utterances)
        device, time = frames.values.device, frames.values.shape[1]
        frontend = self.encoder.frontend
        assert isinstance(frontend, Posteriors | Recogniser), "the config checks this"
        sounding = frames.valid & ~frontend.silent[frames.values.argmax(-1)]
        total = sounding.sum(1)
        # Rounded at random, so that the expected share is the same at every length.
        more = draw.uniform(ids, "count", 1)[:, 0].to(device, non_blocking=True)
        count = (self.config.share * total + more).floor().long()
        count = count.clamp(min=1).minimum(total).minimum(frames.lengths - 1)
        places = draw.uniform(ids, "hide", time).to(device, non_blocking=True).masked_fill(~sounding, 2.0)
        return places.argsort(stable=True).argsort(1) < count[:, None]

    def _read(self, frames: Frames, hidden: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
        """Put the learned vector in place of the hidden embeddings; their positions stay."""
        context = self.encoder.context
        assert isinstance(context, RelativeTransformer), "the config checks this"
        embedded = torch.where(hidden[:, :, None], self.mask, context.project(frames.values))
        return context.read(embedded, frames.lengths).last

    def _trivial(self, frames: Frames, hidden: Bool[Tensor, "batch time"]) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors on the same frames; no predictor can be better than the targets' entropy."""
        wanted = frames.values[hidden]
        guesses = {name: guess(frames, hidden)[hidden] for name, guess in PREDICTORS.items()}
        return {
            name: cross_entropy(wanted, guess.clamp_min(_FLOOR).log()).detach()
            for name, guess in {**guesses, "entropy": wanted}.items()
        }


def cross_entropy(
    wanted: Float[Tensor, "frames units"], logarithms: Float[Tensor, "frames units"]
) -> Float[Tensor, ""]:
    """Sum −Σ h log p over frames, for probabilities h and logarithms of probabilities p."""
    return -(wanted * logarithms).sum()
