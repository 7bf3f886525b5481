"""data2vec: say what a teacher makes of what one cannot see.

A. Baevski, W.-N. Hsu, Q. Xu, A. Babu, J. Gu, M. Auli, "data2vec: A General Framework for Self-supervised Learning in
Speech, Vision and Language", ICML 2022, arXiv 2202.03555.

A student reads an utterance with spans hidden, a teacher the whole of it, and at the hidden steps the student must say
the average of what the teacher's top blocks say there. Such targets know the whole utterance, unlike a frame or a code.
The teacher is the student's own moving average, so nothing is labelled, contrasted or rebuilt.

Differs from the paper: frames are hidden before they are projected and not after; the teacher follows the projection
and the convolution of positions too, where the code lets both networks share them (and, as here, the frontend);
positions come from one wide convolution, as wav2vec 2.0 has it, and not from five. In the CPU presets log-mel frames
take the place of the waveform's convolutions and sinusoids that of positions. The learning rate is set by the presets.
"""

from typing import Literal

import torch
from jaxtyping import Bool
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts import ConvolutionalTransformer
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.waveform import WAV2VEC2_512
from mockingjay.moves import rebuild
from mockingjay.moves.hide import Spans, hide
from mockingjay.moves.teach import Pace, Teacher
from mockingjay.objectives.objective import Objective


class Data2Vec(Objective):
    """Hide spans of frames and say what a teacher that sees them thinks there."""

    class Config(config.Config):
        """Defaults are BASE for speech (section 4.2)."""

        kind: Literal["data2vec"] = "data2vec"
        encoder: Encoder.Config = Encoder.Config(
            frontend=WAV2VEC2_512, context=ConvolutionalTransformer.Config(heads=12)
        )
        """What is kept after training; its context must have Transformer blocks."""
        hide: Spans = Spans(share=0.65, width=10, zero=1.0, random=0.0)
        """Which frames a learned vector takes the place of; a span begins at 6.5 % of them, which hides about half."""
        top: int = Field(default=8, ge=1)
        """Blocks of the teacher whose average is to be said, from the top (K)."""
        follow: Pace = Pace()
        """How slowly the teacher follows."""
        distance: rebuild.Distance = "l2"
        """Between what is said and the teacher's; for speech squares serve (code), 'huber' is smooth L1 with β = 1."""

        @model_validator(mode="after")
        def _all_hidden(self) -> "Data2Vec.Config":
            if self.hide.zero != 1:
                raise ValueError(f"hide.zero {self.hide.zero} leaves frames visible, expected 1")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.mask = nn.Parameter(torch.rand(self.encoder.frontend.dim))
        self.head = nn.Linear(self.encoder.dim, self.encoder.dim)
        self.teacher = Teacher(self.encoder.context, config.top)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames = self.encoder.frontend(batch.waves)
        selected = self._select(frames, batch, draw)
        seen = Frames(torch.where(selected[:, :, None], self.mask, frames.values), frames.lengths)
        targets = Frames(self.teacher(Frames(frames.values.detach(), frames.lengths)), frames.lengths)
        altered = rebuild.Altered(seen, targets, selected)
        distance = self.config.distance
        scored = rebuild.score(self.head, self.encoder.context(seen).last, altered, distance)
        return Loss(*scored, {} if self.training else rebuild.trivial(altered, distance))

    def after_step(self, progress: float) -> None:
        """Let the teacher follow; after the first step it is the student, whatever that one has begun with."""
        self.teacher.follow(self.encoder.context, self.config.follow.at(progress) if progress else 0.0)

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None

    def _select(self, frames: Frames, batch: Batch, draw: Draw) -> Bool[Tensor, "batch time"]:
        places = Frames(frames.values[:, :, :1].detach(), frames.lengths)
        return hide(places, self.config.hide, draw, tuple(utterance.id for utterance in batch.utterances))[1]
