"""The dumb predictors every reconstruction is measured against: a method that loses to them has learnt nothing.

All take the true frames and say what they would put on the hidden ones, knowing the visible ones only.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mockingjay.core.types import Frames

Guess = Float[Tensor, "batch time dim"]


def utterance_mean(frames: Frames, hidden: Bool[Tensor, "batch time"]) -> Guess:
    """Put the mean of the utterance's visible frames."""
    visible = (frames.valid & ~hidden)[:, :, None]
    mean = (frames.values * visible).sum(1, keepdim=True) / visible.sum(1, keepdim=True).clamp(min=1)
    return mean.expand_as(frames.values)


def copy_last(frames: Frames, hidden: Bool[Tensor, "batch time"]) -> Guess:
    """Put the last visible frame before the span, or the first after it where none is before."""
    before, after = _neighbours(frames, hidden)
    return _take(frames, torch.where(before >= 0, before, after))


def interpolation(frames: Frames, hidden: Bool[Tensor, "batch time"]) -> Guess:
    """Draw a straight line across the span between its visible neighbours; at an end, repeat the one there is."""
    before, after = _neighbours(frames, hidden)
    time = frames.values.shape[1]
    left = torch.where(before >= 0, before, after)
    right = torch.where(after < time, after, before)
    steps = torch.arange(time, device=hidden.device)
    share = ((steps - left) / (right - left).clamp(min=1)).clamp(0, 1)[:, :, None]
    return _take(frames, left) * (1 - share) + _take(frames, right) * share


PREDICTORS: Mapping[str, Callable[[Frames, Bool[Tensor, "batch time"]], Guess]] = {
    "utterance mean": utterance_mean,
    "copy last": copy_last,
    "interpolation": interpolation,
}


def _neighbours(
    frames: Frames, hidden: Bool[Tensor, "batch time"]
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Nearest visible frame at or before each frame (−1: none) and at or after it (time: none)."""
    time = hidden.shape[1]
    steps = torch.arange(time, device=hidden.device).expand_as(hidden)
    visible = frames.valid & ~hidden
    before = torch.where(visible, steps, -1).cummax(-1).values
    after = torch.where(visible, steps, time).flip(-1).cummin(-1).values.flip(-1)
    return before, after


def _take(frames: Frames, index: Int[Tensor, "batch time"]) -> Guess:
    # An utterance with nothing visible has no neighbours; it is never scored, so any frame will do.
    index = index.clamp(0, frames.values.shape[1] - 1)
    return frames.values.gather(1, index[:, :, None].expand_as(frames.values))
