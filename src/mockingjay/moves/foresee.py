"""Foresee: say at every step the frame that comes some steps later (Chung et al. 2019, arXiv 1904.03240).

Every pair of a step and its later frame that lies inside the utterance is scored, by L1. Sums are masked rather than
selected from, so that nothing waits for an accelerator to count.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, Loss
from mockingjay.encoders.contexts.context import Context
from mockingjay.moves.guess import utterance_mean


def require_causal(context: Context, kind: str) -> None:
    """Refuse a context that has seen what it is asked for.

    Raises:
        ConfigError: The context sees the future, or has not one step per frame.
    """
    if not context.causal or context.stride != 1:
        raise ConfigError(
            f"objective.encoder.context: {kind!r} is no network that reads the past alone with a step per frame, "
            "expected one, or there is nothing to foresee; set its kind to 'recurrent'"
        )


def foresee(guessed: Float[Tensor, "batch time dim"], frames: Frames, ahead: int, trivial: bool) -> Loss:
    """Score what each step says of the frame `ahead` steps later.

    Args:
        guessed: What is said at each step.
        frames: What was to be said.
        ahead: Frames.
        trivial: Whether to score as parts what predictors without a network would say.
    """
    wanted, scored = frames.values[:, ahead:], frames.valid[:, ahead:]
    steps = wanted.shape[1]
    parts = {}
    if trivial:
        mean = utterance_mean(frames, torch.zeros_like(frames.valid))
        parts = {
            "copy last": absolute_error(frames.values[:, :steps], wanted, scored),
            "utterance mean": absolute_error(mean[:, :steps], wanted, scored),
        }
    weight = scored.sum() * float(wanted.shape[2])
    return Loss(absolute_error(guessed[:, :steps], wanted, scored), weight, parts)


def arrive(
    guessed: Float[Tensor, "batch time dim"], frames: Frames, ahead: int
) -> tuple[Float[Tensor, "batch time dim"], Bool[Tensor, "batch time"]]:
    """Put what was said where it comes true; the first `ahead` frames, of which nothing was said, stay as they are.

    Returns:
        The frames so told, and which of them were.
    """
    time = frames.values.shape[1]
    told = torch.cat([frames.values[:, :ahead], guessed[:, : max(time - ahead, 0)]], 1)
    return told, frames.valid & (torch.arange(time, device=told.device) >= ahead)


def absolute_error(
    guessed: Float[Tensor, "batch time dim"], true: Float[Tensor, "batch time dim"], scored: Bool[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Sum up the L1 distance over the scored steps."""
    return (F.l1_loss(guessed, true, reduction="none") * scored[:, :, None]).sum()
