"""Masked reconstruction: fill in bands of time and of frequency with a bidirectional recurrent encoder.

W. Wang, Q. Tang, K. Livescu, "Unsupervised Pre-training of Bidirectional Speech Encoders via Masked Reconstruction",
ICASSP 2020, arXiv 2001.10603.

SpecAugment's masks become the task: bands of frames and bands of channels are zeroed, and a linear decoder must rebuild
the hidden cells, and these alone, under the squared error. Masks must be wide in both axes, or a recurrent network that
reads both ways fills them by interpolation. A linear input network, the identity until then, adapts what was learnt to
another domain while all else stays, the decoder included.

Differs from the paper: sizes and widths of the masks are ours, for its text was not at hand, and so is that the decoder
rests in adaptation; the loss is that of the first author's later code, without its second draw of every width.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.bidirectional import Bidirectional
from mockingjay.encoders.contexts.transformer import initialise
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Fbank
from mockingjay.moves import rebuild
from mockingjay.moves.alter import choose_bands, hide_channels
from mockingjay.objectives.objective import Objective, Picture


class Bands(config.Config):
    """Bands of one axis, each of a width drawn from 1 to the widest; they may overlap."""

    count: int = Field(default=2, ge=1)
    """Bands per utterance."""
    widest: int = Field(default=16, ge=1)
    """Widest band in channels or frames."""


class MaskedReconstruction(Objective):
    """Hide bands of both axes and rebuild them."""

    class Config(config.Config):
        """Two masks an axis are the paper's (code); widths are ours."""

        kind: Literal["masked-reconstruction"] = "masked-reconstruction"
        encoder: Encoder.Config = Encoder.Config(frontend=Fbank.Config(), context=Bidirectional.Config())
        """What is kept after training."""
        time: Bands = Bands(widest=40)
        """Bands of frames."""
        channel: Bands = Bands(widest=16)
        """Bands of channels."""
        learn: Literal["network", "linear-input"] = "network"
        """Train the network, a linear input network resting, or the latter alone; a run's other weights then rest."""

        @model_validator(mode="after")
        def _has_what_is_learnt(self) -> "MaskedReconstruction.Config":
            if self.adapts and not getattr(self.encoder.context, "linear_input", False):
                raise ValueError("learn 'linear-input' without one, expected encoder.context.linear_input=true")
            return self

        @property
        def adapts(self) -> bool:
            """Whether a linear input network alone is trained."""
            return self.learn == "linear-input"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        rebuild.require_step_per_frame(self.encoder.context, config.encoder.context.kind)
        self.head = nn.Linear(self.encoder.dim, self.encoder.frontend.dim)
        self.head.apply(initialise)
        self.factor = rebuild.stacking(config.encoder.frontend)
        self.adapts = config.adapts
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(("linear_input" in name) == self.adapts)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        altered = self._alter(batch, draw)
        scored = rebuild.score(self.head, self.encoder.context(altered.read).last, altered, "l2")
        return Loss(*scored, rebuild.realised(altered, scored[1]) if self.training else rebuild.trivial(altered, "l2"))

    @classmethod
    def measure(cls, config: Config) -> str:
        return rebuild.MEASURES["l2"]

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        return Picture(*rebuild.panels(self.encoder, self.head, self._alter(batch, draw)))

    @torch.no_grad()
    def _alter(self, batch: Batch, draw: Draw) -> rebuild.Altered:
        """Zero bands of steps and bands of channels, training and evaluation alike."""
        true = self.encoder.frontend(batch.waves)
        device, ids = true.values.device, tuple(utterance.id for utterance in batch.utterances)
        time, channel = self.config.time, self.config.channel
        size, mels = true.values.shape[1], true.values.shape[2] // self.factor
        widest = max(1, round(time.widest / self.factor))
        steps = choose_bands(true.lengths, size, time.count, (1, widest), draw, ids, "time")
        everywhere = torch.full((len(ids),), mels)
        bands = choose_bands(everywhere, mels, channel.count, (1, channel.widest), draw, ids, "channel")
        steps, bands = (each.to(device, non_blocking=True) for each in (steps, bands))
        channels = bands.repeat(1, self.factor)
        read = hide_channels(Frames(true.values.masked_fill(steps[:, :, None], 0.0), true.lengths), channels)
        return rebuild.Altered(read, true, steps, channels, self.factor)
