"""TERA: rebuild speech that was altered along time, channel and magnitude.

A. T. Liu, S.-W. Li, H.-y. Lee, "TERA: Self-Supervised Learning of Transformer Encoder Representation for Speech",
IEEE/ACM TASLP 29, 2021, arXiv 2007.06028.

Three alterations are drawn independently and stack: spans of frames are hidden as in Mockingjay, a band of channels is
hidden for the whole utterance, and now and then noise is added to every cell. One head rebuilds the clean frames, and
the L1 distance counts on the spans and on the band alike; where noise is the only alteration, it counts everywhere.
Time teaches what follows what, channels who is speaking, magnitude how it sounds.

Differs from the paper: nothing we know of; the default is all three axes on 80 log-mel bands, where the toolkit's
default of that time leaves out the noise (preset time-channel) and the first version read fMLLR features, which need
Kaldi. Differs from the code: see moves/hide and moves/alter.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Batch, Loss
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.log_mel import TERA_80
from mockingjay.moves import rebuild
from mockingjay.moves.alter import Band, Noise, add_noise, choose_bands, hide_channels
from mockingjay.moves.hide import Spans, hide
from mockingjay.objectives.objective import Objective, Picture

Axis = Literal["time", "channel", "magnitude"]


class TERA(Objective):
    """Alter frames along up to three axes and rebuild them."""

    class Config(config.Config):
        """Defaults are base with all three axes (code)."""

        kind: Literal["tera"] = "tera"
        encoder: Encoder.Config = Encoder.Config(frontend=TERA_80)
        """What is kept after training."""
        axes: tuple[Axis, ...] = ("time", "channel", "magnitude")
        """Which alterations are made: any of time, channel and magnitude."""
        time: Spans = Spans()
        """Which spans are hidden, their widths in frames."""
        channel: Band = Band()
        """How wide a band of channels is hidden."""
        magnitude: Noise = Noise()
        """Which utterances become noisy and how."""
        distance: rebuild.Distance = "l1"
        """Between rebuilt and true cells; the paper's is L1."""

        @model_validator(mode="after")
        def _some_axes(self) -> "TERA.Config":
            if not self.axes or len(set(self.axes)) < len(self.axes):
                raise ValueError(f"axes {list(self.axes)} must be at least one of them, each at most once")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        rebuild.require_step_per_frame(self.encoder.context, config.encoder.context.kind)
        self.head = rebuild.prediction_network(self.encoder.dim, self.encoder.frontend.dim)
        self.factor = rebuild.stacking(config.encoder.frontend)
        self.spans = config.time.in_steps(self.factor)
        self.channels = self.encoder.frontend.dim // self.factor
        self.widest = int(config.channel.share * self.channels)  # channels
        if "channel" in config.axes and "time" not in config.axes and not self.widest:
            raise ConfigError(
                f"objective.channel.share: {config.channel.share} of {self.channels} channels is less than one, "
                "expected one at least where nothing else is asked for; raise it or add 'time' to objective.axes"
            )

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        altered = self._alter(batch, draw)
        scored = rebuild.score(self.head, self.encoder.context(altered.read).last, altered, self.config.distance)
        hidden = rebuild.realised(altered, scored[1]) if "time" in self.config.axes else {}
        return Loss(*scored, hidden if self.training else self._trivial(altered))

    @classmethod
    def measure(cls, config: Config) -> str:
        return rebuild.MEASURES[config.distance]

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        return Picture(*rebuild.panels(self.encoder, self.head, self._alter(batch, draw)))

    @torch.no_grad()
    def _alter(self, batch: Batch, draw: Draw) -> rebuild.Altered:
        """Alter the frames: noise first, so that what is hidden is zero.

        In evaluation nothing scored is visible: spans are always zeroed, and noise is always added where it is alone.
        """
        true = self.encoder.frontend(batch.waves)
        config, ids = self.config, tuple(utterance.id for utterance in batch.utterances)
        alone = config.axes == ("magnitude",)
        read, steps, channels = true, true.valid & alone, None
        if "magnitude" in config.axes:
            always = {"probability": 1.0} if alone and not self.training else {}
            read = add_noise(read, config.magnitude.model_copy(update=always), draw, ids)
        if "time" in config.axes:
            read, steps = hide(read, self.spans if self.training else self.spans.zeroed, draw, ids)
        if "channel" in config.axes:
            everywhere = torch.full((len(ids),), self.channels)
            band = choose_bands(everywhere, self.channels, 1, (0, self.widest), draw, ids, "channel")
            channels = band.to(true.values.device, non_blocking=True).repeat(1, self.factor)
            read = hide_channels(read, channels)
        return rebuild.Altered(read, true, steps, channels, self.factor)

    def _trivial(self, altered: rebuild.Altered) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors; under noise alone the only one is to say what is read."""
        distance = self.config.distance
        if self.config.axes != ("magnitude",):
            return rebuild.trivial(altered, distance)
        errors = rebuild.DISTANCES[distance](altered.read.values, altered.true.values, reduction="none")
        return {"as read": (errors * altered.cells).sum()}
