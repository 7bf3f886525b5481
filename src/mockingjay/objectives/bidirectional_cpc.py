"""Bidirectional CPC: representations that hold in other domains and languages.

K. Kawakami, L. Wang, C. Dyer, P. Blunsom, A. van den Oord, "Learning Robust and Multilingual Speech Representations",
Findings of EMNLP 2020, arXiv 2001.11128.

Two networks share the convolutions over samples: one reads the past and must tell the frames 1 to 12 steps later from
others of the utterance, the other reads the future and must tell those as many steps earlier. Neither sees what it is
asked for, because they never mix; what is kept is both side by side.

Differs from the paper: sizes are ours, for its text was not at hand: seven convolutions with a norm over the channels
of each step, 10 negatives, densely connected causal convolutions; the preset `lstm` has the four LSTM layers a
direction of the re-implementation in "Scaling Effect of Self-Supervised Speech Models" (arXiv 2102.00850), under a
linear map.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.convolution_pair import ConvolutionPair
from mockingjay.encoders.contexts.one_way_pair import reverse
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.waveform import Waveform
from mockingjay.moves.contrast import Negatives, compare, draw_negatives, info_nce
from mockingjay.moves.predict import LinearPredictors
from mockingjay.objectives.objective import Objective

SEVEN_512 = Waveform.Config(
    kernels=(10, 8, 4, 4, 4, 1, 1), strides=(5, 4, 2, 2, 2, 1, 1), paddings=(3, 2, 1, 1, 1, 0, 0), norm="channel"
)
PAIRS = ("convolution-pair", "one-way-pair")


class BidirectionalCPC(Objective):
    """Tell later frames from others, and earlier ones too."""

    class Config(config.Config):
        """Everything here is ours; see above."""

        kind: Literal["bidirectional-cpc"] = "bidirectional-cpc"
        encoder: Encoder.Config = Encoder.Config(frontend=SEVEN_512, context=ConvolutionPair.Config())
        """What is kept after training; its context's directions must not mix."""
        steps: int = Field(default=12, ge=1)
        """Distances foretold each way, from one frame on."""
        negatives: Negatives = Negatives(count=10, source="sequence")
        """What true frames are told from."""

        @model_validator(mode="after")
        def _apart(self) -> "BidirectionalCPC.Config":
            if (kind := self.encoder.context.kind) not in PAIRS:
                raise ValueError(f"encoder.context.kind {kind!r} mixes past and future, expected one of {PAIRS}")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.draws_from = config.negatives.draws_from
        sizes = (LinearPredictors.Config(), self.encoder.dim // 2, self.encoder.frontend.dim, config.steps)
        self.onward, self.backward = LinearPredictors(*sizes), LinearPredictors(*sizes)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames = self.encoder.frontend(batch.waves)
        onward, backward = self.encoder.context(frames).last.chunk(2, -1)
        later = self._tell(self.onward(onward), frames, batch, draw, "later")
        turned = Frames(reverse(frames.values, frames.lengths), frames.lengths)
        earlier = self._tell(self.backward(reverse(backward, frames.lengths)), turned, batch, draw, "earlier")
        parts = {name: part + earlier.parts[name] for name, part in later.parts.items()}
        return Loss(later.sum + earlier.sum, later.weight + earlier.weight, parts)

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None

    def _tell(
        self, told: Float[Tensor, "batch time steps dim"], frames: Frames, batch: Batch, draw: Draw, purpose: str
    ) -> Loss:
        negatives = draw_negatives(self.config.negatives, frames, draw, batch.utterances, f"negatives {purpose}")
        return info_nce(compare(told, frames, negatives), trivial=not self.training)
