"""wav2vec: unsupervised pre-training for speech recognition.

S. Schneider, A. Baevski, R. Collobert, M. Auli, "wav2vec: Unsupervised Pre-training for Speech Recognition",
Interspeech 2019, arXiv 1904.05862.

CPC without recurrence: five convolutions make frames, nine causal ones read the past. Of the true frame k steps later
and of ten others from the same utterance it is asked one by one whether they are the true one (binary NCE), after an
affine map per distance. What comes out takes the place of log-mel features in a recogniser.

Differs from the paper: maps share one bias, as in the code; the first frame foretold is the third, so that it shares no
sample with what is known (code). Differs from the code: negatives and the norm over the utterance leave padding out.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Loss
from mockingjay.encoders.contexts.causal_convolution import CausalConvolution
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.waveform import WAV2VEC_512, Waveform
from mockingjay.moves.contrast import Negatives, binary_nce, compare, draw_negatives
from mockingjay.moves.predict import LinearPredictors
from mockingjay.objectives.objective import Objective


class Wav2Vec(Objective):
    """Say of single frames whether they come some steps later."""

    class Config(config.Config):
        """Defaults are base (section 2; code)."""

        kind: Literal["wav2vec"] = "wav2vec"
        encoder: Encoder.Config = Encoder.Config(frontend=WAV2VEC_512, context=CausalConvolution.Config())
        """What is kept after training; its context must be causal convolutions."""
        steps: int = Field(default=12, ge=1)
        """Distances foretold."""
        offset: int | None = Field(default=None, ge=1)
        """Frames from the present one to the first foretold; none: the fewest that share no sample with the present
        one, 3 (code); the text has 1."""
        negatives: Negatives = Negatives(count=10, source="sequence")
        """What true frames are told from (section 2.2)."""

        @model_validator(mode="after")
        def _convolutions(self) -> "Wav2Vec.Config":
            # Not by `Context.causal`: with the published norm over the utterance its convolutions alone are.
            if (kind := self.encoder.context.kind) != "causal-convolution":
                raise ValueError(f"encoder.context.kind {kind!r} is no wav2vec, expected 'causal-convolution'")
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
        self.predictors = LinearPredictors(LinearPredictors.Config(), self.encoder.dim, frontend.dim, config.steps)
        self.bias = nn.Parameter(torch.zeros(frontend.dim))

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames = self.encoder.frontend(batch.waves)
        told = self.predictors(self.encoder.context(frames).last) + self.bias
        negatives = draw_negatives(self.config.negatives, frames, draw, batch.utterances)
        return binary_nce(compare(told, frames, negatives, self.first), trivial=not self.training)

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None
