"""Speech-XLNet: predict frames one after the other, in a random order.

X. Song, G. Wang, Z. Wu, Y. Huang, D. Su, D. Yu, H. Meng, "Speech-XLNet: Unsupervised Acoustic Model Pretraining For
Self-Attention Networks", Interspeech 2020, arXiv 1910.10387.

Each visit of an utterance draws an order of its frames, and the network must say each frame from those before it in
that order, past and future mixed. Two streams make this one pass: the content stream reads the frames, the query stream
knows only where the frame stands that it must say (XLNet, arXiv 1906.08237). Only the last fifth of the order is asked
for, where enough is known, and the distance is Huber's.

Differs from the paper: sizes, features, the linear head and Huber's threshold (1, on features of unit variance) are
ours, for its text was not at hand; positions are sinusoids where XLNet's are relative; at least one frame of an
utterance is asked for.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss, valid_steps
from mockingjay.encoders.contexts.transformer import Transformer, initialise
from mockingjay.encoders.contexts.two_stream import two_streams
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Fbank, unstack
from mockingjay.moves.rebuild import Altered, features, score, stacking, trivial
from mockingjay.objectives.objective import Objective, Picture


class SpeechXLNet(Objective):
    """Predict the last frames of a random order from those before them."""

    class Config(config.Config):
        """Share and loss are the paper's, the rest is ours."""

        kind: Literal["speech-xlnet"] = "speech-xlnet"
        encoder: Encoder.Config = Encoder.Config(
            frontend=Fbank.Config(), context=Transformer.Config(layers=6, dim=512, feedforward=2048, heads=8)
        )
        """What is kept after training; its context must be a transformer."""
        share: float = Field(default=0.2, gt=0, lt=1)
        """Share of the order, at its end, that is predicted (paper)."""

        @model_validator(mode="after")
        def _two_streams(self) -> "SpeechXLNet.Config":
            if self.encoder.context.kind != "transformer":
                raise ValueError(f"encoder.context is '{self.encoder.context.kind}', two streams need a 'transformer'")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.factor = stacking(config.encoder.frontend)
        self.start = nn.Parameter(torch.empty(self.encoder.dim).normal_(std=0.02))  # w of XLNet, section 2.3
        self.head = nn.Linear(self.encoder.dim, self.encoder.frontend.dim)
        self.head.apply(initialise)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        asked, expected = self._expect(batch, draw)
        parts = {} if self.training else trivial(asked, "huber")
        return Loss(*score(self.head, expected, asked, "huber"), parts)

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        asked, expected = self._expect(batch, draw)
        shown = asked.at_frame_rate()
        length = int(shown.true.lengths[0])
        true, read, hidden = (part[0, :length] for part in (shown.true.values, shown.read.values, shown.steps))
        said = unstack(self.head(expected), self.factor)[0, :length]
        rebuilt = torch.where(hidden[:, None], said, true)  # nothing is said about the rest
        return Picture(true, read, rebuilt, hidden, self.encoder.hop // self.factor)

    def _expect(self, batch: Batch, draw: Draw) -> tuple[Altered, Float[Tensor, "batch time dim"]]:
        """Run the query stream at the steps that are asked for; elsewhere nothing is expected."""
        frames, _ = features(batch.waves, self.encoder.frontend, None)
        ranks, asked, targets = self._order(frames, batch, draw)
        context = self.encoder.context
        assert isinstance(context, Transformer), "the config checks this"
        _, query = two_streams(context, frames, ranks, targets, self.start)
        expected = query.new_zeros(*asked.shape, query.shape[2])
        expected = expected.masked_scatter(asked[:, :, None], query[asked.gather(1, targets)])
        known = Frames(frames.values.masked_fill(asked[:, :, None], 0.0), frames.lengths)
        return Altered(known, frames, asked, factor=self.factor), expected

    def _order(
        self, frames: Frames, batch: Batch, draw: Draw
    ) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"], Int[Tensor, "batch targets"]]:
        """Draw each step's rank in its utterance's order, padding behind, and mark and list the last ones.

        At least one is asked for, but never the first; the lists, in reading order, end in steps that are not asked for
        where an utterance has fewer than another.
        """
        time, lengths = frames.values.shape[1], frames.lengths.cpu()
        ids = tuple(utterance.id for utterance in batch.utterances)
        places = draw.uniform(ids, "order", time).masked_fill(~valid_steps(lengths, time), 2.0)
        ranks = places.argsort(stable=True).argsort(1)
        known = (lengths * (1 - self.config.share)).ceil().long().minimum(lengths - 1).clamp(min=1)
        asked = (ranks >= known[:, None]) & (ranks < lengths[:, None])
        targets = asked.byte().argsort(descending=True, stable=True)[:, : int(asked.sum(1).max())]
        device = frames.values.device
        ranks, asked, targets = (each.to(device, non_blocking=True) for each in (ranks, asked, targets))
        return ranks, asked, targets
