"""Multi-target APC: foresee the future, and remember the past.

Y.-A. Chung, J. Glass, "Improved Speech Representations with Multi-Target Autoregressive Predictive Coding", ACL 2020,
arXiv 2004.05274.

A hidden state that remembers more of the past foretells more of the future. So at random anchors a second recurrent
network, which starts from the anchor's hidden state, must rebuild a few frames from some way back, each from the one
before. The encoder still reads the past alone: only the loss looks back, and the second network is dropped afterwards.

Differs from the paper: its numbers are quoted from memory, since no code was released. Both errors are means per cell:
an anchor's cells are weighted by the inverse of how many of them are expected per frame, which keeps the loss a sum
over utterances. As APC here, features are normalised per utterance, so the frames know its mean and variance.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts import Recurrent
from mockingjay.encoders.contexts.recurrent import recur
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.fbank import APC_80
from mockingjay.moves.foresee import absolute_error, arrive, foresee, require_causal
from mockingjay.moves.guess import utterance_mean
from mockingjay.objectives.objective import Objective, Picture


class Past(config.Config):
    """What is asked of the past."""

    weight: float = Field(default=0.1, ge=0)
    """Of the past's error beside the future's (λ); 0 is APC."""
    share: float = Field(default=0.15, gt=0, le=1)
    """Probability that a frame is an anchor."""
    back: int = Field(default=7, ge=1)
    """Frames from an anchor back to the first frame its second network reads."""
    width: int = Field(default=3, ge=1)
    """Frames to rebuild from there on."""

    @model_validator(mode="after")
    def _is_past(self) -> "Past":
        if self.width > self.back:
            raise ValueError(f"width {self.width} reaches beyond the anchor, expected at most back {self.back}")
        return self


class MultiTargetAPC(Objective):
    """Say the frame n steps later, and from some hidden states frames long gone."""

    class Config(config.Config):
        """Defaults are the paper's, from memory."""

        kind: Literal["multi-target-apc"] = "multi-target-apc"
        encoder: Encoder.Config = Encoder.Config(frontend=APC_80, context=Recurrent.Config())
        """What is kept after training; its context must be causal."""
        ahead: int = Field(default=5, ge=1)
        """Frames from the present one to the one foretold."""
        past: Past = Past()
        """What is asked of the past."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        require_causal(self.encoder.context, config.encoder.context.kind)
        dim, frame = self.encoder.dim, self.encoder.frontend.dim
        self.head = nn.Linear(dim, frame)
        # One weak layer: a stronger one would foretell the past from the frames it is fed and leave h alone.
        self.recall = nn.GRU(frame, dim, batch_first=True)
        self.recall_head = nn.Linear(dim, frame)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
        hidden = self.encoder.context(frames).last
        future = foresee(self.head(hidden), frames, self.config.ahead, trivial=not self.training)
        past = self._remember(hidden, frames, batch, draw)
        scale = self.config.past.weight / (self.config.past.share * self.config.past.width)
        parts = {name: error + scale * past.parts[name] for name, error in future.parts.items()}
        return Loss(future.sum + scale * past.sum, future.weight, parts)

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        frames = self.encoder.frontend(batch.waves)
        told, foretold = arrive(self.head(self.encoder.context(frames).last), frames, self.config.ahead)
        true = frames.values[0, : frames.lengths[0]]
        return Picture(true, true, told[0, : len(true)], foretold[0, : len(true)], self.encoder.hop)

    def _remember(self, hidden: Float[Tensor, "batch time dim"], frames: Frames, batch: Batch, draw: Draw) -> Loss:
        """Rebuild frames before the anchors, each from the true one before it and the anchor's hidden state."""
        rows, anchors = self._anchors(batch, frames, draw)
        past = self.config.past
        steps = anchors[:, None] - past.back + torch.arange(past.width + 1, device=anchors.device)
        segments = frames.values[rows[:, None], steps]
        fed, wanted = segments[:, :-1], segments[:, 1:]
        states, _ = recur(self.recall, fed, hidden[rows, anchors][None])
        # Only steps that foretell a frame: the others the network does not even read in APC's code.
        scored = (anchors + self.config.ahead < frames.lengths[rows])[:, None].expand(-1, past.width)
        parts = {}
        if not self.training:
            mean = utterance_mean(frames, torch.zeros_like(frames.valid))[rows[:, None], steps[:, 1:]]
            guesses = {"copy last": fed, "utterance mean": mean}
            parts = {name: absolute_error(guess, wanted, scored) for name, guess in guesses.items()}
        weight = scored.sum() * float(wanted.shape[2])
        return Loss(absolute_error(self.recall_head(states), wanted, scored), weight, parts)

    def _anchors(
        self, batch: Batch, frames: Frames, draw: Draw
    ) -> tuple[Int[Tensor, " anchors"], Int[Tensor, " anchors"]]:
        """Draw anchors that have enough past, as rows and steps; also where no step foretells a frame.

        Chosen without looking at the lengths, which may lie on an accelerator.
        """
        ids = tuple(utterance.id for utterance in batch.utterances)
        chosen = draw.uniform(ids, "anchor", frames.values.shape[1]) < self.config.past.share
        chosen[:, : self.config.past.back] = False
        rows, anchors = chosen.nonzero(as_tuple=True)
        device = frames.values.device
        return rows.to(device, non_blocking=True), anchors.to(device, non_blocking=True)
