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
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.transformer import initialise
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import FrontendConfig, Stacked, build_frontend
from mockingjay.encoders.frontends.stacked import unstack
from mockingjay.moves.guess import PREDICTORS
from mockingjay.moves.hide import Spans, hide
from mockingjay.objectives.objective import Objective, Picture

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": F.huber_loss}


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
        distance: Literal["l1", "l2", "huber"] = "l1"
        """Between rebuilt and true cells; the paper's is L1."""

        @model_validator(mode="after")
        def _aligned(self) -> "Mockingjay.Config":
            if self.target is not None:
                source, target = (build_frontend(part).grid for part in (self.encoder.frontend, self.target))
                if source != target:
                    raise ValueError(f"target has its steps on {target}, expected the encoder's {source}")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.target = build_frontend(config.target) if config.target is not None else None
        self.factor = _factor(config.encoder.frontend)
        self.spans = config.hide if config.unit == "step" else _in_steps(config.hide, self.factor)
        dim = self.encoder.dim
        # The prediction network of section 2.1: two feed-forward layers with a norm between.
        rebuilt = self.target.dim if self.target is not None else self.encoder.frontend.dim
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12), nn.Linear(dim, rebuilt))
        self.head.apply(initialise)

    def prepare(self, batches: Iterable[Batch]) -> None:
        for frontend in (self.encoder.frontend, self.target):
            if frontend is not None:
                frontend.fit(batch.waves for batch in batches)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames, true = self._frames(batch)
        altered, selected = self._hide(frames, batch, draw)
        hidden = self.encoder.context(altered).last
        wanted = true.values[selected]
        # The head runs on scored steps only: 15 % of the cost.
        loss = DISTANCES[self.config.distance](self.head(hidden[selected]), wanted, reduction="sum")
        weight = torch.tensor(float(wanted.numel()), device=loss.device)
        return Loss(loss, weight, {} if self.training else self._trivial(true, selected))

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        frames, true = self._frames(batch)
        altered, selected = self._hide(frames, batch, draw)
        rebuilt = Frames(self.head(self.encoder.context(altered).last), altered.lengths)
        true, altered, rebuilt = (_unstacked(part, self.factor) for part in (true, altered, rebuilt))
        length = int(true.lengths[0])
        return Picture(
            true.values[0, :length],
            altered.values[0, :length],
            rebuilt.values[0, :length],
            selected.repeat_interleave(self.factor, 1)[0, :length],
            self.encoder.hop // self.factor,
        )

    @torch.no_grad()
    def _frames(self, batch: Batch) -> tuple[Frames, Frames]:
        """Compute what the network reads and what the head must say."""
        frames = self.encoder.frontend(batch.waves)
        return frames, frames if self.target is None else self.target(batch.waves)

    def _hide(self, frames: Frames, batch: Batch, draw: Draw) -> tuple[Frames, Bool[Tensor, "batch time"]]:
        """Alter the frames between the storeys; in evaluation always by zeros, so that nothing scored is visible."""
        spans = self.spans if self.training else self.spans.model_copy(update={"zero": 1.0, "random": 0.0})
        return hide(frames, spans, draw, tuple(utterance.id for utterance in batch.utterances))

    def _trivial(self, true: Frames, selected: Bool[Tensor, "batch time"]) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors on the same cells, frame by frame where steps are stacked."""
        frames = _unstacked(true, self.factor)
        chosen = selected.repeat_interleave(self.factor, 1)
        distance = DISTANCES[self.config.distance]
        return {
            name: distance(guess(frames, chosen)[chosen], frames.values[chosen], reduction="sum").detach()
            for name, guess in PREDICTORS.items()
        }


def _factor(frontend: FrontendConfig) -> int:
    return frontend.factor if isinstance(frontend, Stacked.Config) else 1


def _unstacked(frames: Frames, factor: int) -> Frames:
    return Frames(unstack(frames.values, factor), frames.lengths * factor)


def _in_steps(spans: Spans, factor: int) -> Spans:
    """Count widths in stacked steps instead of frames."""
    least, most = (max(1, round(width / factor)) for width in spans.widths)
    return spans.model_copy(update={"width": (least, most)})
