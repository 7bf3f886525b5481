"""APC: autoregressive predictive coding.

Y.-A. Chung, W.-N. Hsu, H. Tang, J. Glass, "An Unsupervised Autoregressive Model for Speech Representation Learning",
Interspeech 2019, arXiv 1904.03240.

A language model on frames: a recurrent network that reads the past must say at every step the frame n steps later, and
regression takes the softmax's place. The frame next to come is nearly the present one, so n > 1 keeps the network from
merely copying. The L1 distance is the loss; on held-out speech it stands beside what copying the present frame scores.

Differs from the paper: features are normalised per utterance and not per speaker, for speakers may be unknown, so the
frames themselves, unlike the network, know the utterance's mean. GRU layers as in the released code, where the text has
LSTMs. Differs from the code: padding is not scored.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Loss
from mockingjay.encoders.contexts import Recurrent
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.fbank import APC_80
from mockingjay.moves.foresee import arrive, foresee, require_causal
from mockingjay.objectives.objective import Objective, Picture


class APC(Objective):
    """Say the frame n steps later."""

    class Config(config.Config):
        """Defaults are the released code's, with the n that serves phones best."""

        kind: Literal["apc"] = "apc"
        encoder: Encoder.Config = Encoder.Config(frontend=APC_80, context=Recurrent.Config())
        """What is kept after training; its context must be causal."""
        ahead: int = Field(default=3, ge=1)
        """Frames from the present one to the one foretold; released are 1, 2, 3, 5, 10 and 20 (code)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        require_causal(self.encoder.context, config.encoder.context.kind)
        self.head = nn.Linear(self.encoder.dim, self.encoder.frontend.dim)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
        hidden = self.encoder.context(frames).last
        return foresee(self.head(hidden), frames, self.config.ahead, trivial=not self.training)

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        frames = self.encoder.frontend(batch.waves)
        told, foretold = arrive(self.head(self.encoder.context(frames).last), frames, self.config.ahead)
        true = frames.values[0, : frames.lengths[0]]
        return Picture(true, true, told[0, : len(true)], foretold[0, : len(true)], self.encoder.hop)
