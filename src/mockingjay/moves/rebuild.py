"""Rebuild what was altered: which cells are asked for, how an answer is scored, and what the dumb predictors would say.

A cell is one channel of one step. Asked for are all channels of some steps, and some channels of all steps: every
masked acoustic model here is one such pair. Selecting before summing gives every cell the same weight, so long
utterances weigh more, as in the code of Mockingjay and TERA.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Batch, Frames, Waves
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.transformer import initialise
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Frontend, FrontendConfig, Stacked, build_frontend
from mockingjay.encoders.frontends.stacked import unstack
from mockingjay.moves.guess import PREDICTORS

Distance = Literal["l1", "l2", "huber"]
DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": F.huber_loss}
MEASURES: Mapping[Distance, str] = {
    "l1": "mean absolute error on masked frames",
    "l2": "mean squared error on masked frames",
    "huber": "Huber loss on masked frames",
}


@dataclass(frozen=True, slots=True)
class Altered:
    """A batch as the network reads it and what is asked of it, `factor` frames side by side in every step."""

    read: Frames
    true: Frames
    steps: Bool[Tensor, "batch time"]  # asked for in all channels
    channels: Bool[Tensor, "batch dim"] | None = None  # asked for in all valid steps
    factor: int = 1  # frames in a step

    @property
    def cells(self) -> Bool[Tensor, "batch time channels"]:
        """Where answers are scored; a single column stands for all channels."""
        steps = self.steps[:, :, None]
        return steps if self.channels is None else steps | (self.channels[:, None, :] & self.true.valid[:, :, None])

    def at_frame_rate(self) -> "Altered":
        """The same, one frame a step."""
        read, true = (unstacked(frames, self.factor) for frames in (self.read, self.true))
        steps = self.steps.repeat_interleave(self.factor, 1)
        # Frames side by side have the same channels hidden.
        channels = None if self.channels is None else self.channels[:, : true.values.shape[2]]
        return Altered(read, true, steps, channels)


def unstacked(frames: Frames, factor: int) -> Frames:
    """Undo the stacking of `factor` frames."""
    return Frames(unstack(frames.values, factor), frames.lengths * factor)


def stacking(frontend: FrontendConfig) -> int:
    """Count the frames in one step of a frontend."""
    return frontend.factor if isinstance(frontend, Stacked.Config) else 1


def check_same_steps(source: FrontendConfig, target: FrontendConfig) -> None:
    """Refuse a target that is computed at other times than the input, or from other files.

    Raises:
        ValueError: It is; a config's validator turns this into a ConfigError.
    """
    mine, theirs = build_frontend(source), build_frontend(target)
    if mine.grid != theirs.grid:
        raise ValueError(f"target has its steps on {theirs.grid}, expected the encoder's {mine.grid}")
    if mine.reads != theirs.reads:
        raise ValueError("one of target and input reads features and the other sound, expected both to read the same")


def require_step_per_frame(context: Context, kind: str) -> None:
    """Refuse a context that makes one step of several frames, each of which is hidden or not by itself.

    Raises:
        ConfigError: It does.
    """
    if context.stride != 1:
        raise ConfigError(
            f"objective.encoder.context: {kind!r} has {context.stride} frames a step, expected one, for frames are "
            "hidden one by one; stack frames by the frontend instead"
        )


@torch.no_grad()
def features(waves: Waves, source: Frontend, target: Frontend | None) -> tuple[Frames, Frames]:
    """Compute what is read and what is to be rebuilt, which are the same where there is no other target."""
    frames = source(waves)
    return frames, frames if target is None else target(waves)


def fit(batches: Iterable[Batch], source: Frontend, target: Frontend | None) -> None:
    """Show the corpus to the frontends, for statistics they keep of it."""
    for frontend in (source, target):
        if frontend is not None:
            frontend.fit(batch.waves for batch in batches)


def prediction_network(dim: int, outputs: int) -> nn.Sequential:
    """Make the head of the NTU models: two feed-forward layers with a norm between (arXiv 1910.12638, section 2.1)."""
    head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12), nn.Linear(dim, outputs))
    return head.apply(initialise)


def score(
    head: nn.Module, hidden: Float[Tensor, "batch time dim"], altered: Altered, distance: Distance
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum the distances over the cells that are asked for, and count these cells."""
    cells = altered.cells
    asked = cells.any(-1).nonzero(as_tuple=True)  # the head runs on these steps only
    wanted, chosen = altered.true.values[asked], cells[asked]
    errors = DISTANCES[distance](head(hidden[asked]), wanted, reduction="none")
    return (errors * chosen).sum(), chosen.expand_as(wanted).sum().float()


@torch.no_grad()
def realised(altered: Altered, weight: Float[Tensor, ""]) -> dict[str, Float[Tensor, ""]]:
    """Tell which share of the steps the draw came to hide, as a part of a loss; of several batches each has its weight.

    Steps that were drawn and stay as they are count among them; channels that are hidden in all steps do not.
    """
    return {"hidden": altered.steps.sum() / altered.true.lengths.sum().clamp(min=1) * weight}


@torch.no_grad()
def trivial(altered: Altered, distance: Distance) -> dict[str, Float[Tensor, ""]]:
    """Sum the same distances for the dumb predictors, which know the visible cells' true values.

    Hidden channels are first guessed across the channels of their frame, then hidden frames along time.
    """
    altered = altered.at_frame_rate()
    true, steps, cells = altered.true, altered.steps, altered.cells
    sums = {}
    for name, predict in PREDICTORS.items():
        known = true
        if altered.channels is not None:
            sideways = true.values.transpose(1, 2)
            everywhere = torch.full_like(true.lengths, sideways.shape[1])
            across = predict(Frames(sideways, everywhere), altered.channels).transpose(1, 2)
            known = Frames(torch.where(altered.channels[:, None, :], across, true.values), true.lengths)
        guess = torch.where(steps[:, :, None], predict(known, steps), known.values)
        sums[name] = (DISTANCES[distance](guess, true.values, reduction="none") * cells).sum()
    return sums


Panels = tuple[
    Float[Tensor, "frames target"],
    Float[Tensor, "frames mels"],
    Float[Tensor, "frames target"],
    Bool[Tensor, " frames"],
    int,  # samples
]


def panels(encoder: Encoder, head: nn.Module, altered: Altered) -> Panels:
    """Show the first utterance at frame rate: true, as read, rebuilt, which frames were hidden, and samples a frame."""
    hidden = encoder.context(unstacked(altered.read, encoder.context.stride)).last
    rebuilt = unstack(head(hidden), altered.factor)
    shown, hop = altered.at_frame_rate(), encoder.hop // altered.factor
    length = int(shown.true.lengths[0])
    true, read = shown.true.values[0, :length], shown.read.values[0, :length]
    return true, read, rebuilt[0, :length], shown.steps[0, :length], hop
