"""MPC: masked predictive coding, the encoder of a speech recogniser trained to rebuild what it cannot see.

D. Jiang, X. Lei, W. Li, N. Luo, Y. Hu, W. Zou, X. Li, "Improving Transformer-based Speech Recognition Using
Unsupervised Pre-training", 2019, arXiv 1910.09932.

The encoder reads four frames a step, so chunks of four frames are hidden, aligned with its steps: 15 % of them, each of
which becomes zero (80 %), another chunk (10 %) or stays (10 %). One matrix on top says the four frames of every hidden
step, and the L1 distance on these is the loss. The whole encoder then goes into the recogniser.

Differs from the paper: of its text only summaries were at hand. Differs from the code: the loss is the mean over hidden
cells, which an explicit selection tells, rather than a sum over input cells that equal zero, divided by all steps; a
fixed share of chunks is hidden rather than each with a probability; the code only zeroes, 20 % (preset code).
"""

from typing import Literal

import torch
from torch import nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.subsampled import SubsampledTransformer
from mockingjay.encoders.contexts.transformer import initialise
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.fbank import MPC_40
from mockingjay.moves import rebuild
from mockingjay.moves.hide import Spans, hide
from mockingjay.objectives.objective import Objective, Picture


class MPC(Objective):
    """Hide chunks of frames, each what the encoder makes one step of, and rebuild them."""

    class Config(config.Config):
        """Defaults are the paper's selection and the code's encoder."""

        kind: Literal["mpc"] = "mpc"
        encoder: Encoder.Config = Encoder.Config(frontend=MPC_40, context=SubsampledTransformer.Config())
        """What is kept after training; a chunk has as many frames as a step of its context."""
        hide: Spans = Spans(width=1, per="frame")
        """Which chunks are hidden and how; widths, and what is drawn per 'frame', count chunks."""
        masks: Literal["dynamic", "static"] = "dynamic"
        """Draw an utterance's chunks at every visit, or the same at all (on crops: the same places of each crop)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.factor = self.encoder.context.stride
        self.head = nn.Linear(self.encoder.dim, self.factor * self.encoder.frontend.dim)
        self.head.apply(initialise)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        altered = self._alter(batch, draw)
        hidden = self.encoder.context(rebuild.unstacked(altered.read, self.factor)).last
        scored = rebuild.score(self.head, hidden, altered, "l1")
        return Loss(*scored, rebuild.realised(altered, scored[1]) if self.training else rebuild.trivial(altered, "l1"))

    @classmethod
    def measure(cls, config: Config) -> str:
        return rebuild.MEASURES["l1"]

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        return Picture(*rebuild.panels(self.encoder, self.head, self._alter(batch, draw)))

    @torch.no_grad()
    def _alter(self, batch: Batch, draw: Draw) -> rebuild.Altered:
        """Hide chunks of the frames; in evaluation always by zeros, so that nothing scored is visible."""
        frames = self.encoder.frontend(batch.waves)
        steps = frames.values.shape[1] // self.factor
        chunks = frames.values[:, : steps * self.factor].unflatten(1, (steps, self.factor)).flatten(2)
        true = Frames(chunks, frames.lengths // self.factor)
        spans = self.config.hide if self.training else self.config.hide.zeroed
        if self.config.masks == "static":
            draw = Draw(draw.seed)
        read, selected = hide(true, spans, draw, tuple(utterance.id for utterance in batch.utterances))
        return rebuild.Altered(read, true, selected, factor=self.factor)
