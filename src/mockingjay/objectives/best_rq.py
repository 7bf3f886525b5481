"""BEST-RQ: guess the random codes of what is hidden.

C.-C. Chiu, J. Qin, Y. Zhang, J. Yu, Y. Wu, "Self-supervised Learning with Random-projection Quantizer for Speech
Recognition", ICML 2022, arXiv 2202.01855.

Spans of the input become noise, and at every hidden step the network must say which code stood there. The codes are
those of a random projection and a random codebook, which are never learned: quantisation need not be good to be a good
question, as the network learns from what surrounds a step what its codes have in common. So there is neither a second
network nor anything that could collapse.

Differs from the paper: a Transformer of 12 layers takes the place of 24 Conformer layers with 600 million parameters,
and four frames are stacked where it has two strided convolutions; features are normalised per utterance; spans are
counted in stacked steps. Sizes of the encoder and the learning rate are ours.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts import Transformer
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Stacked
from mockingjay.encoders.frontends.log_mel import TERA_80
from mockingjay.encoders.noise import normal
from mockingjay.encoders.quantise import perplexity
from mockingjay.moves import rebuild
from mockingjay.moves.hide import Spans, hide
from mockingjay.moves.random_projection import RandomProjection
from mockingjay.objectives.objective import Objective

_FIRST = 16  # batches whose codes are counted before training, for those who guess by frequency


class BestRQ(Objective):
    """Hide spans of steps and say which code stood there."""

    class Config(config.Config):
        """Defaults are the paper's but for the encoder."""

        kind: Literal["best-rq"] = "best-rq"
        encoder: Encoder.Config = Encoder.Config(
            frontend=Stacked.Config(factor=4, inner=TERA_80), context=Transformer.Config(layers=12)
        )
        """What is kept after training; its frames are what codes are made of."""
        hide: Spans = Spans(share=0.4, width=40, zero=1.0, random=0.0)
        """Which frames become noise: spans of 400 ms, one beginning at 1 % of the frames (section 4.1)."""
        deviation: float = Field(default=0.1, ge=0)
        """Standard deviation of the noise, in the features' unit (section 4.1)."""
        quantiser: RandomProjection.Config = RandomProjection.Config()
        """The questions; dropped after training."""

        @model_validator(mode="after")
        def _all_hidden(self) -> "BestRQ.Config":
            if self.hide.zero != 1:
                raise ValueError(f"hide.zero {self.hide.zero} leaves frames visible, expected 1")
            return self

    counts: Float[Tensor, " codes"]  # of the codes in the corpus, as far as they were counted

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        rebuild.require_step_per_frame(self.encoder.context, config.encoder.context.kind)
        self.quantiser = RandomProjection(config.quantiser, self.encoder.frontend.dim)
        self.spans = config.hide.in_steps(rebuild.stacking(config.encoder.frontend))
        self.head = nn.Linear(self.encoder.dim, config.quantiser.codes)
        self.register_buffer("counts", torch.zeros(config.quantiser.codes))

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fit the frontend and count codes."""
        self.encoder.frontend.fit(batch.waves for batch in batches)
        self.counts.zero_()
        for batch in itertools.islice(batches, _FIRST):
            frames = self.encoder.frontend(batch.waves)
            self.counts.index_add_(0, self.quantiser(frames.values).flatten(), frames.valid.flatten().float())

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
            codes = self.quantiser(frames.values)
            seen, selected = self._hide(frames, batch, draw)
        hidden = self.encoder.context(seen).last
        asked = selected.nonzero(as_tuple=True)  # the head runs on these steps only
        logits, wanted = self.head(hidden[asked]).float(), codes[asked]
        weight = selected.sum().float()
        if not self.training:
            return Loss(F.cross_entropy(logits, wanted, reduction="sum"), weight, self._trivial(wanted, weight))
        right = (logits.detach().argmax(-1) == wanted).sum().float()
        used = perplexity(codes, frames.valid, self.config.quantiser.codes)
        parts = {"accuracy": right, "target perplexity": used * weight}  # of codes that cannot collapse
        return Loss(F.cross_entropy(logits, wanted, reduction="sum"), weight, parts)

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None

    def _hide(self, frames: Frames, batch: Batch, draw: Draw) -> tuple[Frames, Bool[Tensor, "batch time"]]:
        ids, values = tuple(utterance.id for utterance in batch.utterances), frames.values
        _, selected = hide(frames, self.spans, draw, ids)
        noise = self.config.deviation * normal(draw, ids, "noise", values[0].numel(), values.device)
        return Frames(torch.where(selected[:, :, None], noise.view(values.shape), values), frames.lengths), selected

    def _trivial(self, wanted: Int[Tensor, " asked"], weight: Float[Tensor, ""]) -> dict[str, Float[Tensor, ""]]:
        """Score those who know nothing, and how frequent each code is in the corpus."""
        shares = (self.counts + 1) / (self.counts.sum() + len(self.counts))
        return {"chance": weight * math.log(len(self.counts)), "marginal": -shares.log()[wanted].sum()}
