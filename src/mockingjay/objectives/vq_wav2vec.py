"""vq-wav2vec: self-supervised learning of discrete speech representations.

A. Baevski, S. Schneider, M. Auli, "vq-wav2vec: Self-Supervised Learning of Discrete Speech Representations", ICLR 2020,
arXiv 1910.05453.

wav2vec with a quantiser between its two storeys: every frame becomes two codes, the context reads the codes' vectors,
and what is told from negatives are such vectors too. So speech comes out as symbols, which methods for text can read.
Codes are chosen by a Gumbel-softmax, or are those nearest to the frame (the preset `k-means`).

Differs from the paper: each group of the k-means has a codebook of its own, and its codes begin at frames of the
corpus; what reads the symbols afterwards (BERT) is not here. The first frame foretold is the third, and the maps share
one bias, as in the code. Differs from the code: rectified where it has GELUs; eight distances, as the paper has it, and
not twelve; no map and norm of its own before the k-means; negatives and the norm over the utterance leave padding out.
"""

import itertools
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.quantised_convolution import QuantisedConvolution
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.waveform import Waveform
from mockingjay.encoders.product import Occasion
from mockingjay.encoders.quantise import Chosen
from mockingjay.moves.contrast import Negatives, binary_nce, compare, draw_negatives
from mockingjay.moves.predict import LinearPredictors
from mockingjay.objectives.objective import Objective

_FIRST = 8  # batches whose frames codes may begin at

VQ_WAV2VEC_512 = Waveform.Config(
    kernels=(10, 8, 4, 4, 4, 1, 1, 1),
    strides=(5, 4, 2, 2, 2, 1, 1, 1),
    paddings=(0,) * 8,
    bias=False,
    norm="group",
)


class VQWav2Vec(Objective):
    """Say of the codes of single frames whether they come some steps later."""

    class Config(config.Config):
        """Defaults are base (section 5)."""

        kind: Literal["vq-wav2vec"] = "vq-wav2vec"
        encoder: Encoder.Config = Encoder.Config(frontend=VQ_WAV2VEC_512, context=QuantisedConvolution.Config())
        """What is kept after training; its context must be quantised convolutions, and has the quantiser."""
        steps: int = Field(default=8, ge=1)
        """Distances foretold."""
        offset: int | None = Field(default=None, ge=1)
        """Frames from the present one to the first foretold; none: the fewest that share no sample with the present
        one, 3 (code)."""
        negatives: Negatives = Negatives(count=10, source="sequence")
        """What true frames are told from."""

        @model_validator(mode="after")
        def _quantised(self) -> "VQWav2Vec.Config":
            if (kind := self.encoder.context.kind) != "quantised-convolution":
                raise ValueError(f"encoder.context.kind {kind!r} has no codes, expected 'quantised-convolution'")
            if (kind := self.encoder.frontend.kind) != "waveform":
                raise ValueError(f"encoder.frontend.kind {kind!r} is no wav2vec, expected 'waveform'")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.draws_from = config.negatives.draws_from
        frontend = self.encoder.frontend
        assert isinstance(frontend, Waveform), "the config checks this"
        self.first = config.offset or -(-frontend.reach // frontend.grid.hop)
        self.predictors = LinearPredictors(LinearPredictors.Config(), self.encoder.dim, self.encoder.dim, config.steps)
        self.bias = nn.Parameter(torch.zeros(self.encoder.dim))

    @property
    def context(self) -> QuantisedConvolution:
        """The encoder's, which has the quantiser."""
        context = self.encoder.context
        assert isinstance(context, QuantisedConvolution), "the config checks this"
        return context

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        self.encoder.frontend.fit(batch.waves for batch in batches)
        for batch in itertools.islice(batches, _FIRST):
            self._quantise(self.encoder.frontend(batch.waves), batch, 0.0, Draw(0))
        self.context.quantiser.begin()

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames = self.encoder.frontend(batch.waves)
        chosen = self._quantise(frames, batch, progress, draw)
        quantised = Frames(chosen.values * frames.valid[..., None], frames.lengths)
        told = self.predictors(self.context.read(quantised).last) + self.bias
        negatives = draw_negatives(self.config.negatives, quantised, draw, batch.utterances)
        loss = binary_nce(compare(told, quantised, negatives, self.first), trivial=not self.training)
        cost = (chosen.cost * frames.valid).sum()
        if self.training:
            parts = {**loss.parts, "perplexity": chosen.perplexity(frames.valid) * loss.weight}
        else:  # whoever guesses pays for the codes too
            parts = {name: part + cost for name, part in loss.parts.items()}
        return Loss(loss.sum + cost, loss.weight, parts)

    def after_step(self, progress: float) -> None:
        self.context.quantiser.follow()

    def codes(self, batch: Batch) -> Int[Tensor, "steps groups"]:
        frames = self.encoder.frontend(batch.waves)
        return self.context.codes(frames)[frames.valid]

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None

    def _quantise(self, frames: Frames, batch: Batch, progress: float, draw: Draw) -> Chosen:
        if not self.training:
            return self.context.quantise(frames)
        occasion = Occasion(progress, draw, tuple(utterance.id for utterance in batch.utterances))
        chosen = self.context.quantise(frames, occasion)
        self.context.quantiser.note(frames.values, chosen, frames.valid, occasion)
        return chosen
