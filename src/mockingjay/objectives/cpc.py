"""CPC: contrastive predictive coding.

A. van den Oord, Y. Li, O. Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018,
arXiv 1807.03748.

Convolutions turn samples into frames, a recurrent network reads the past, and a matrix per distance says from it what
the frame 1 to 12 steps later is like. Nothing is rebuilt: the true frame must fit better, by inner product, than others
drawn from the batch. Frames that lie close in time are so pulled together and distant ones pushed apart, and the loss
bounds the mutual information from below by log N − L.

Differs from the paper: the convolutions' paddings, of which it is silent, and 128 negatives are those of the replica in
modified CPC, its batch normalisation a preset; windows end where the utterance does; see also moves/contrast.
"""

from typing import Literal

from pydantic import Field

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Loss
from mockingjay.encoders.contexts import Recurrent
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.waveform import CPC_512
from mockingjay.moves.contrast import Negatives, compare, draw_negatives, info_nce
from mockingjay.moves.foresee import require_causal
from mockingjay.moves.predict import LinearPredictors
from mockingjay.objectives.objective import Objective


class CPC(Objective):
    """Tell later frames from others."""

    class Config(config.Config):
        """Defaults are the paper's (section 3.1)."""

        kind: Literal["cpc"] = "cpc"
        encoder: Encoder.Config = Encoder.Config(
            frontend=CPC_512, context=Recurrent.Config(cell="gru", layers=1, dim=256, residual=False)
        )
        """What is kept after training; its context must be causal."""
        steps: int = Field(default=12, ge=1)
        """Distances foretold, from one frame on."""
        negatives: Negatives = Negatives(count=128, source="batch")
        """What true frames are told from: all of the batch as published, or as in table 2 the same speaker or the same
        sequence."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        require_causal(self.encoder.context, config.encoder.context.kind)
        self.draws_from = config.negatives.draws_from
        self.predictors = LinearPredictors(
            LinearPredictors.Config(), self.encoder.dim, self.encoder.frontend.dim, config.steps
        )

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames = self.encoder.frontend(batch.waves)
        told = self.predictors(self.encoder.context(frames).last)
        negatives = draw_negatives(self.config.negatives, frames, draw, batch.utterances)
        return info_nce(compare(told, frames, negatives), trivial=not self.training)

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None
