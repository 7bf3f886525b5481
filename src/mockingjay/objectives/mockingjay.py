"""Mockingjay: masked acoustic modelling with a deep bidirectional Transformer.

A. T. Liu, S.-w. Yang, P.-H. Chi, P.-c. Hsu, H.-y. Lee, "Mockingjay: Unsupervised Speech Representation Learning with
Deep Bidirectional Transformer Encoders", ICASSP 2020, arXiv 1910.12638.

Spans of frames are hidden from a Transformer that sees past and future, and a small head must rebuild them. 15 % of the
frames are selected, and per utterance all of them become zero (80 %), frames from elsewhere (10 %) or stay (10 %); the
L1 distance on the selected frames is the loss. LARGE stacks R = 3 frames into one step and rebuilds linear spectra from
mel input.

Differs from the paper: nothing we know of. Differs from the released code: every frame of a span is scored, not its
first alone.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Bool
from pydantic import model_validator
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import FrontendConfig, build_frontend
from mockingjay.moves import rebuild
from mockingjay.moves.hide import Spans, hide
from mockingjay.objectives.objective import Objective, Picture


class Mockingjay(Objective):
    """Hide spans of frames and rebuild them."""

    class Config(config.Config):
        """Defaults are BASE (Table 1)."""

        kind: Literal["mockingjay"] = "mockingjay"
        encoder: Encoder.Config = Encoder.Config()
        """What is kept after training."""
        target: FrontendConfig | None = None
        """What is rebuilt where it is not the input itself; its steps must lie on the input's."""
        hide: Spans = Spans()
        """Which spans are hidden, counted in `unit`s."""
        unit: Literal["frame", "step"] = "frame"
        """Whether span widths count frames, as in the paper, or stacked steps; a span is at least one step."""
        distance: rebuild.Distance = "l1"
        """Between rebuilt and true cells; the paper's is L1."""

        @model_validator(mode="after")
        def _aligned(self) -> "Mockingjay.Config":
            if self.target is not None:
                rebuild.check_same_steps(self.encoder.frontend, self.target)
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        rebuild.require_step_per_frame(self.encoder.context, config.encoder.context.kind)
        self.target = build_frontend(config.target) if config.target is not None else None
        self.factor = rebuild.stacking(config.encoder.frontend)
        self.spans = config.hide if config.unit == "step" else config.hide.in_steps(self.factor)
        rebuilt = self.target.dim if self.target is not None else self.encoder.frontend.dim
        self.head = rebuild.prediction_network(self.encoder.dim, rebuilt)

    def prepare(self, batches: Iterable[Batch]) -> None:
        rebuild.fit(batches, self.encoder.frontend, self.target)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        altered = self._alter(batch, draw)
        hidden = self.encoder.context(altered.read).last
        distance = self.config.distance
        scored = rebuild.score(self.head, hidden, altered, distance)
        parts = rebuild.realised(altered, scored[1]) if self.training else rebuild.trivial(altered, distance)
        return Loss(*scored, parts)

    @classmethod
    def measure(cls, config: Config) -> str:
        return rebuild.MEASURES[config.distance]

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        return Picture(*rebuild.panels(self.encoder, self.head, self._alter(batch, draw)))

    def _alter(self, batch: Batch, draw: Draw) -> rebuild.Altered:
        frames, true = rebuild.features(batch.waves, self.encoder.frontend, self.target)
        read, selected = self._hide(frames, batch, draw)
        return rebuild.Altered(read, true, selected, factor=self.factor)

    def _hide(self, frames: Frames, batch: Batch, draw: Draw) -> tuple[Frames, Bool[Tensor, "batch time"]]:
        """Alter the frames between the storeys; in evaluation always by zeros, so that nothing scored is visible."""
        spans = self.spans if self.training else self.spans.zeroed
        return hide(frames, spans, draw, tuple(utterance.id for utterance in batch.utterances))
